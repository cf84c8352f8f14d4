// Bytes, hashes and the one error of the program. Everything here is Node's own.

import crypto from 'node:crypto'

// Refused carries the name that SPEC.md gives to an error.
export class Refused extends Error {
  constructor(name) {
    super(name)
    this.refusal = name
  }
}

export function refuse(name) {
  throw new Refused(name)
}

// under runs f and gives every refusal in it the name that the table has for it, or `other`.
export function under(table, other, f) {
  try {
    return f()
  } catch (e) {
    if (!(e instanceof Refused)) throw e
    return refuse(table[e.refusal] ?? other)
  }
}

export const hex = b => Buffer.from(b).toString('hex')
export const unhex = s => Buffer.from(s, 'hex')
export const ascii = s => Buffer.from(s, 'latin1')
export const cat = (...parts) => Buffer.concat(parts)
export const same = (a, b) => Buffer.compare(a, b) === 0
export const zeros = n => Buffer.alloc(n)
export const isZero = b => b.every(x => x === 0)

export const u16 = n => { const b = zeros(2); b.writeUInt16BE(n); return b }
export const u32 = n => { const b = zeros(4); b.writeUInt32BE(n); return b }
export const u64 = n => { const b = zeros(8); b.writeBigUInt64BE(BigInt(n)); return b }

const digest = (name, parts, options) => {
  const h = crypto.createHash(name, options)
  for (const p of parts) h.update(p)
  return h.digest()
}
export const sha256 = (...parts) => digest('sha256', parts)
export const sha512 = (...parts) => digest('sha512', parts)
export const sha3 = (...parts) => digest('sha3-256', parts)
export const shake256 = (n, ...parts) => digest('shake256', parts, { outputLength: n })
export const hmac = (key, ...parts) => {
  const h = crypto.createHmac('sha256', key)
  for (const p of parts) h.update(p)
  return h.digest()
}

// HKDF (RFC 5869), in its two steps and as one.
export const extract = (salt, secret) => hmac(salt.length ? salt : zeros(32), secret)
export function expand(key, info, n) {
  let out = zeros(0), last = zeros(0)
  for (let i = 1; out.length < n; i++) {
    last = hmac(key, last, info, Buffer.from([i]))
    out = cat(out, last)
  }
  return out.subarray(0, n)
}
export const hkdf = (secret, info, n) => expand(extract(zeros(0), secret), info, n)

// AES-256-GCM and ChaCha20-Poly1305 with the tag behind the text.
const opener = cipher => (key, nonce, sealed, aad) => {
  if (sealed.length < 16) refuse('ErrOpen')
  const d = crypto.createDecipheriv(cipher, key, nonce, { authTagLength: 16 })
  d.setAAD(aad)
  d.setAuthTag(sealed.subarray(-16))
  const plain = d.update(sealed.subarray(0, -16))
  try {
    d.final()
  } catch {
    refuse('ErrOpen')
  }
  return plain
}
export const gcmOpen = opener('aes-256-gcm')
export const chachaOpen = opener('chacha20-poly1305')

// XChaCha20-Poly1305: HChaCha20 of the first 16 bytes of the nonce gives the key for the rest.
function hchacha(key, nonce) {
  const s = new Uint32Array([0x61707865, 0x3320646e, 0x79622d32, 0x6b206574, ...[0, 4, 8, 12, 16, 20, 24, 28].map(i => key.readUInt32LE(i)),
    ...[0, 4, 8, 12].map(i => nonce.readUInt32LE(i))])
  const turn = (a, b, n) => { s[a] ^= s[b]; s[a] = s[a] << n | s[a] >>> (32 - n) }
  const quarter = (a, b, c, d) => {
    for (const [x, y] of [[16, 12], [8, 7]]) {
      s[a] += s[b]
      turn(d, a, x)
      s[c] += s[d]
      turn(b, c, y)
    }
  }
  const rounds = [[0, 4, 8, 12], [1, 5, 9, 13], [2, 6, 10, 14], [3, 7, 11, 15], [0, 5, 10, 15], [1, 6, 11, 12], [2, 7, 8, 13], [3, 4, 9, 14]]
  for (let i = 0; i < 10; i++) for (const r of rounds) quarter(...r)
  const out = zeros(32)
  for (const [i, x] of [0, 1, 2, 3, 12, 13, 14, 15].entries()) out.writeUInt32LE(s[x], 4 * i)
  return out
}

const inner = nonce => cat(zeros(4), nonce.subarray(16))
export const xchachaOpen = (key, nonce, sealed, aad) => chachaOpen(hchacha(key, nonce), inner(nonce), sealed, aad)
export function xchachaSeal(key, nonce, plain) {
  const c = crypto.createCipheriv('chacha20-poly1305', hchacha(key, nonce), inner(nonce), { authTagLength: 16 })
  return cat(c.update(plain), c.final(), c.getAuthTag())
}

// number is how a vector writes an integer: a number if JavaScript has it exactly, else its decimal digits.
export const number = n => n <= BigInt(Number.MAX_SAFE_INTEGER) && n >= -BigInt(Number.MAX_SAFE_INTEGER) ? Number(n) : String(n)

// lean drops what a vector leaves out: zero, empty and absent fields.
export function lean(o) {
  const keep = v => !(v === undefined || v === 0 || v === '' || v === false || (Array.isArray(v) && v.length === 0))
  return Object.fromEntries(Object.entries(o).filter(([, v]) => keep(v)))
}

// varint reads a minimal unsigned varint of at most `most` bytes from b at i: the value and where it ends. The
// names of the two refusals, one for a second spelling and one for a cut, are the caller's.
export function varint(b, i, most, long, cut) {
  let v = 0n
  for (let n = 0; ; n++) {
    if (i + n >= b.length) refuse(cut)
    if (n === most) refuse(long)
    const x = b[i + n]
    v |= BigInt(x & 127) << BigInt(7 * n)
    if (x < 128) {
      if (x === 0 && n > 0) refuse(long)
      return [v, i + n + 1]
    }
  }
}

export function putVarint(v) {
  const out = []
  for (v = BigInt(v); v > 127n; v >>= 7n) out.push(Number(v & 127n) | 128)
  out.push(Number(v))
  return Buffer.from(out)
}
