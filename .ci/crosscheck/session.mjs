// protocol/session/SPEC.md: bundles, capsules, what cells hold.

import { cat, hex, isZero, lean, number, putVarint, refuse, under, unhex, u16, u32, varint, zeros } from './bytes.mjs'
import { bool, bstr, decode, int, read, uint, write } from './cbor.mjs'
import { signed } from './identity.mjs'
import { verify } from './keys.mjs'

const MaxBundle = 4096, MaxPayload = 14336, MaxSeq = 4000n, MaxMissing = 32n, maxRuns = 64n, maxInRuns = 2000n, MaxLife = 33 * 86400
const CarryRoom = 96

const b32 = bstr(32)
const bundleFields = [[1, 'Suite', uint(16)], [2, 'Version', uint(16)], [3, 'ID', bstr(8)], [4, 'RecordHash', b32], [5, 'Head', b32],
  [6, 'OlmIdentity', b32], [7, 'OlmKey', b32], [8, 'XWing', bstr(1216)], [9, 'IntroTag', b32], [10, 'Once', bool], [11, 'Expiry', int]]

export function parseBundle(b, { Device, Now }) {
  if (b.length > MaxBundle) refuse('ErrBundle')
  const v = under({ ErrSuite: 'ErrSuite' }, 'ErrBundle', () => {
    const [signature, body] = signed(b)
    const m = decode(body)
    const { Suite, Version } = read(m, bundleFields.slice(0, 2))
    if (Suite !== 1 || Version !== 1) refuse('ErrSuite')
    verify(unhex(Device), 'kinloom/bundle/1', body, signature)
    return read(m, bundleFields)
  })
  if (v.Expiry <= Now || v.Expiry > Now + MaxLife) refuse('ErrExpired')
  return v
}

// Bytes of a fixed layout, read from the front.
class Front {
  constructor(b) {
    this.b = b
    this.i = 0
  }

  more() { return this.i < this.b.length }

  take(n) {
    if (this.b.length - this.i < n) refuse('ErrBroken')
    this.i += n
    return this.b.subarray(this.i - n, this.i)
  }

  hex(n) { return hex(this.take(n)) }

  uv(min, max) {
    const [v, end] = varint(this.b, this.i, 10, 'ErrBroken', 'ErrBroken')
    this.i = end
    return v >= min && v <= max ? v : refuse('ErrBroken')
  }

  end(v) { return this.more() ? refuse('ErrBroken') : v }
}

const capsuleKeys = ['Device', 'Record', 'Head', 'YourRecord', 'YourHead', 'OlmBase', 'OlmRatchet']

export function parseCapsule(b) {
  if (b.length !== 8 + 16 + 7 * 32 + 1 + CarryRoom) refuse('ErrBroken')
  const Suite = b.readUInt16BE(0), Version = b.readUInt16BE(2), Epoch = b.readUInt32BE(4)
  if (Suite !== 1 || Version !== 1) refuse('ErrSuite')
  const f = new Front(b.subarray(8))
  const previous = f.take(16)
  const keys = Object.fromEntries(capsuleKeys.map(k => [k, f.hex(32)]))
  const n = f.take(1)[0], room = f.take(CarryRoom)
  if (Epoch === 0 || n > CarryRoom || !isZero(room.subarray(n)) || isZero(previous) !== (n === 0)) refuse('ErrBroken')
  return lean({ Suite, Version, Epoch, Previous: isZero(previous) ? '' : hex(previous), ...keys, Carry: hex(room.subarray(0, n)) })
}

function appendCapsule(v) {
  const carry = unhex(v.Carry ?? '')
  return cat(u16(v.Suite), u16(v.Version), u32(v.Epoch), v.Previous ? unhex(v.Previous) : zeros(16),
    ...capsuleKeys.map(k => unhex(v[k])), Buffer.from([carry.length]), carry, zeros(CarryRoom - carry.length))
}

function parseAdvert(b) {
  const f = new Front(b)
  return f.end({ ID: f.hex(8), OlmKey: f.hex(32), XWing: f.hex(1216) })
}

const appendAdvert = v => cat(unhex(v.ID), unhex(v.OlmKey), unhex(v.XWing))

// Marks and runs, SPEC 4.
function mark(f) {
  const upto = f.uv(0n, MaxSeq)
  let seq = 0n
  const missing = []
  for (let n = f.uv(0n, MaxMissing); n > 0n; n--) {
    seq += f.uv(1n, MaxSeq)
    missing.push(seq <= upto ? number(seq) : refuse('ErrBroken'))
  }
  return lean({ Upto: number(upto), Missing: missing })
}

function putMark({ Upto = 0, Missing = [] }) {
  return cat(putVarint(Upto), putVarint(Missing.length), ...Missing.map((m, i) => putVarint(m - (Missing[i - 1] ?? 0))))
}

function runs(f) {
  let end = 0n, sum = 0n
  const out = []
  for (let n = f.uv(1n, maxRuns); n > 0n; n--) {
    const from = end + f.uv(1n, MaxSeq), length = f.uv(1n, maxInRuns)
    end = from + length
    sum += length
    if (end > MaxSeq + 1n || sum > maxInRuns) refuse('ErrBroken')
    out.push({ From: number(from), Len: number(length) })
  }
  return out
}

function putRuns(list) {
  let end = 0
  return cat(putVarint(list.length), ...list.map(({ From, Len }) => {
    const b = cat(putVarint(From - end), putVarint(Len))
    end = From + Len
    return b
  }))
}

// parseOuter reads entries in the order of their table, then zeros.
export function parseOuter(b) {
  const f = new Front(b), order = [3, 4, 5, 1]
  const out = { Items: [] }
  let place = 0, last = 0n
  while (f.more()) {
    const kind = f.take(1)[0]
    if (kind === 0) {
      if (!isZero(f.b.subarray(f.i))) refuse('ErrBroken')
      break
    }
    const at = order.indexOf(kind)
    if (at < place) refuse('ErrBroken')
    place = kind === 1 ? at : at + 1
    if (kind === 3) out.Mark = mark(f)
    if (kind === 4) out.Follows = { Session: f.hex(16), Seq: number(f.uv(1n, MaxSeq)) }
    if (kind === 5) out.Void = runs(f)
    if (kind === 1) {
      const seq = f.uv(last + 1n, (1n << 64n) - 1n)
      const n = f.uv(1n, BigInt(b.length))
      out.Items.push({ Seq: number(seq), Olm: f.hex(Number(n)) })
      last = seq
    }
  }
  return lean(out)
}

function appendOuter(v, b) {
  const parts = []
  if (v.Mark) parts.push(Buffer.from([3]), putMark(v.Mark))
  if (v.Follows) parts.push(Buffer.from([4]), unhex(v.Follows.Session), putVarint(v.Follows.Seq))
  if (v.Void) parts.push(Buffer.from([5]), putRuns(v.Void))
  for (const { Seq, Olm } of v.Items ?? []) parts.push(Buffer.from([1]), putVarint(Seq), putVarint(Olm.length / 2), unhex(Olm))
  const all = cat(...parts)
  return cat(all, zeros(b.length - all.length))
}

// parseInner reads what Olm sealed, behind the binding: SPEC 5.
export function parseInner(b) {
  const f = new Front(b)
  const Type = f.take(1)[0], rest = () => b.subarray(f.i)
  const payload = () => rest().length >= 1 && rest().length <= MaxPayload ? hex(rest()) : refuse('ErrBroken')
  switch (Type) {
    case 1: return { Type, Payload: payload() }
    case 2: return { Type, Conversation: f.hex(32), Payload: payload() }
    case 16: return f.end({ Type, Mark: mark(f) })
    case 17: return { Type, Advert: parseAdvert(rest()) }
    case 18: return f.end({ Type, Session: f.hex(16), Runs: runs(f) })
    case 19: return f.end({ Type, Head: f.hex(32) })
  }
  return refuse('ErrBroken')
}

function appendInner(v) {
  const body = {
    1: () => unhex(v.Payload), 2: () => unhex(v.Conversation + v.Payload), 16: () => putMark(v.Mark),
    17: () => appendAdvert(v.Advert), 18: () => cat(unhex(v.Session), putRuns(v.Runs)), 19: () => unhex(v.Head),
  }
  return cat(Buffer.from([v.Type]), body[v.Type]())
}

const appendBundle = (v, b) => cat(b.subarray(0, 64), write(v, bundleFields))

export const messages = {
  Bundle: { parse: parseBundle, append: appendBundle },
  Capsule: { parse: parseCapsule, append: appendCapsule },
  Advert: { parse: parseAdvert, append: appendAdvert },
  Outer: { parse: parseOuter, append: appendOuter, growing: true },
  Inner: { parse: parseInner, append: appendInner, growing: true },
}
