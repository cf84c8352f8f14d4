// Deterministic CBOR as identity/enc states it: one spelling of every value; no floats, tags, null or indefinite
// lengths; depth at most 8. A message is described once, as a list of fields, and both read and written from that.

import { cat, hex, number, refuse, unhex } from './bytes.mjs'

const MaxDepth = 8

// decode reads one value that fills b. Integers are BigInt, byte strings are Buffers, maps are Maps that also know
// the bytes of each value (raw).
export function decode(b) {
  const r = new Reader(b)
  const v = r.value(0)
  if (r.i !== b.length) refuse('ErrTrailing')
  return v
}

class Reader {
  constructor(b) {
    this.b = b
    this.i = 0
  }

  head() {
    if (this.i >= this.b.length) refuse('ErrTruncated')
    const major = this.b[this.i] >> 5, low = this.b[this.i] & 31
    if (low > 27 || (major === 7 && low !== 20 && low !== 21) || major === 6) refuse('ErrForbidden')
    this.i++
    if (low < 24) return [major, BigInt(low)]
    const n = 1 << (low - 24)
    if (this.b.length - this.i < n) refuse('ErrTruncated')
    let v = 0n
    for (let k = 0; k < n; k++) v = v << 8n | BigInt(this.b[this.i + k])
    if (v < (n === 1 ? 24n : 1n << BigInt(4 * n))) refuse('ErrNotCanonical')
    this.i += n
    return [major, v]
  }

  value(depth) {
    const [major, n] = this.head()
    const left = BigInt(this.b.length - this.i)
    switch (major) {
      case 0: return n
      case 1: return n < 1n << 63n ? -1n - n : refuse('ErrForbidden')
      case 2: return n <= left ? this.take(Number(n)) : refuse('ErrTruncated')
      case 3: return n <= left ? text(this.take(Number(n))) : refuse('ErrTruncated')
      case 7: return n === 21n
    }
    if (depth + 1 > MaxDepth) refuse('ErrDepth')
    if (n > (major === 5 ? left / 2n : left)) refuse('ErrTruncated')
    if (major === 5) return this.map(n, depth + 1)
    const list = []
    for (let k = 0n; k < n; k++) list.push(this.value(depth + 1))
    return list
  }

  map(n, depth) {
    const m = new Map()
    m.raw = new Map()
    let last = null
    for (let k = 0n; k < n; k++) {
      const start = this.i
      if (start < this.b.length && ![0, 1, 3].includes(this.b[start] >> 5)) refuse('ErrForbidden')
      const key = this.value(depth)
      const bytes = this.b.subarray(start, this.i)
      if (last !== null) {
        const order = Buffer.compare(last, bytes)
        if (order === 0) refuse('ErrDuplicate')
        if (order > 0) refuse('ErrNotCanonical')
      }
      last = bytes
      const from = this.i
      m.set(key, this.value(depth))
      m.raw.set(key, this.b.subarray(from, this.i))
    }
    return m
  }

  take(n) {
    this.i += n
    return this.b.subarray(this.i - n, this.i)
  }
}

function text(b) {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(b)
  } catch {
    return refuse('ErrUTF8')
  }
}

function head(major, n) {
  n = BigInt(n)
  if (n < 24n) return Buffer.from([major << 5 | Number(n)])
  const size = n < 256n ? 1 : n < 65536n ? 2 : n < 1n << 32n ? 4 : 8
  const b = Buffer.alloc(1 + size)
  b[0] = major << 5 | 24 + Math.log2(size)
  for (let k = size; k > 0; k--, n >>= 8n) b[k] = Number(n & 255n)
  return b
}

// Kinds of a field. read takes what decode gave and returns the value as a vector writes it; write is the way back
// and takes undefined for a field that the vector leaves out.
const kind = (is, read, write, zero) => ({ is, read, write, zero })

const integer = (min, max) => kind(
  v => typeof v === 'bigint' && v >= min && v <= max, v => number(v),
  v => { const n = BigInt(v); return n < 0n ? head(1, -1n - n) : head(0, n) }, 0)

export const uint = bits => integer(0n, (1n << BigInt(bits)) - 1n)
export const int = integer(-(1n << 63n), (1n << 63n) - 1n)
export const bool = kind(v => typeof v === 'boolean', v => v, v => Buffer.from([v ? 0xf5 : 0xf4]), false)
export const tstr = kind(v => typeof v === 'string', v => v, v => cat(head(3, Buffer.byteLength(v)), Buffer.from(v)), '')
export const bstr = size => kind(
  v => v instanceof Uint8Array && (size === undefined || v.length === size), v => hex(v),
  v => cat(head(2, v.length / 2), unhex(v)), '00'.repeat(size ?? 0))
export const list = of => kind(
  v => Array.isArray(v) && v.every(of.is), v => v.map(of.read), v => cat(head(4, v.length), ...v.map(of.write)), [])
export const struct = fields => kind(
  v => v instanceof Map, v => read(v, fields), v => write(v, fields), {})
// rawMap is a map that is kept as it came.
export const rawMap = kind(v => v instanceof Map, (v, raw) => hex(raw), v => unhex(v), 'a0')

// read takes the fields [key, name, kind, 'optional'] out of a map. An optional field that is there is not empty,
// unless the caller has its own words for that ('spelled').
export function read(m, fields) {
  if (!(m instanceof Map)) refuse('ErrType')
  const out = {}
  let missing = false
  for (const [key, name, kind, option] of fields) {
    const v = m.get(BigInt(key))
    if (v === undefined) {
      missing ||= option === undefined
      continue
    }
    if (!kind.is(v)) refuse('ErrType')
    out[name] = kind.read(v, m.raw.get(BigInt(key)))
    if (option === 'optional' && isEmpty(out[name], kind)) refuse('ErrNotCanonical')
  }
  if (missing) refuse('ErrMissing')
  return out
}

const isEmpty = (v, kind) => v === kind.zero || v === '' || (Array.isArray(v) && v.length === 0)

// write is the other way: the bytes of a value as a vector writes it.
export function write(value, fields) {
  const parts = []
  let n = 0
  for (const [key, name, kind, option] of fields) {
    const v = value[name]
    if (v === undefined && option !== undefined) continue
    n++
    parts.push(head(0, key), kind.write(v ?? kind.zero))
  }
  return cat(head(5, n), ...parts)
}
