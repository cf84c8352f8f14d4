// protocol/rv/SPEC.md: look-up records, and the proxy that puts and fetches them.

import { ascii, cat, hex, hkdf, isZero, lean, number, refuse, same, sha256, sha512, u16, u32, u64, under, unhex, xchachaOpen, xchachaSeal, zeros } from './bytes.mjs'
import { bstr, decode, list, read, struct, uint, write } from './cbor.mjs'
import { blind, blindPublic, edKey, edPublic, verifyPlain } from './keys.mjs'

const RecordSize = 1125, HintSize = 1008, ProxySize = 1200, Day = 86400, Ahead = 78 * 3600, MaxSeq = 2880, LastPeriod = 49708
const MaxPlaces = 16, MaxAddresses = 6, MaxAddress = 127

const place = [[1, 'Transport', bstr(32)], [2, 'Addrs', list(bstr()), 'optional'], [3, 'Caps', uint(32), 'optional'], [4, 'Proof', bstr(64), 'optional']]
const hintFields = [[1, 'Devices', list(struct(place)), 'optional'], [3, 'Bundle', bstr(32), 'optional'], [4, 'Head', bstr(32)], [5, 'Made', uint(32), 'optional']]
const requestFields = [[1, 'Type', uint(8)], [2, 'Point', bstr(32)], [3, 'Record', bstr(), 'optional']]
const replyFields = [[1, 'Type', uint(8)], [2, 'Code', uint(16), 'optional'], [3, 'At', uint(32)], [4, 'Record', bstr(), 'optional']]

const size = s => (s ?? '').length / 2

// unpad reads length(2) map zeros; pad is the way back.
function unpad(b, most, name, fields) {
  const end = b.length === most ? 2 + b.readUInt16BE() : refuse(name)
  if (end > most || !isZero(b.subarray(end))) refuse(name)
  return under({}, name, () => read(decode(b.subarray(2, end)), fields))
}

function pad(v, most, fields) {
  const b = write(v, fields)
  return cat(u16(b.length), b, zeros(most - 2 - b.length))
}

function parseHint(b) {
  const h = unpad(b, HintSize, 'ErrHint', hintFields)
  if ((h.Devices ?? []).length > MaxPlaces) refuse('ErrHintLimit')
  for (const { Addrs = [] } of h.Devices ?? []) {
    if (Addrs.length > MaxAddresses || Addrs.some(a => size(a) < 1 || size(a) > MaxAddress)) refuse('ErrHintLimit')
  }
  return h
}

function parseRequest(b) {
  const m = unpad(b, ProxySize, 'ErrProxy', requestFields)
  const put = m.Type === 1 && size(m.Record) === RecordSize
  return put || (m.Type === 2 && m.Record === undefined) ? m : refuse('ErrProxy')
}

function parseReply(b) {
  const { Type, ...m } = unpad(b, ProxySize, 'ErrProxy', replyFields)
  if (Type !== 3 || (m.Record !== undefined && (size(m.Record) !== RecordSize || m.Code !== undefined))) refuse('ErrProxy')
  return m
}

// What belongs to one device, secret and period. What a vector leaves out is zero.
const material = (a, w) => cat(a, unhex(w.Secret ?? '00'.repeat(32)), u32(w.Period))
const factor = m => sha512(ascii('kinloom/rv/1'), m)
const encryption = m => hkdf(m, ascii('rv-enc'), 32)

function pointOf(a, w) {
  if (w.Period > LastPeriod) refuse('ErrPoint')
  return under({}, 'ErrPoint', () => blindPublic(a, factor(material(a, w))))
}

function split(b) {
  if (b.length !== RecordSize) refuse('ErrSize')
  if (b[0] !== 1) refuse('ErrVersion')
  const notAfter = b.readUInt32BE(1), seq = b.readBigUInt64BE(5)
  if (notAfter % Day !== 0 || notAfter < 2 * Day) refuse('ErrNotAfter')
  if (seq > BigInt(MaxSeq)) refuse('ErrSeq')
  return { notAfter, stamp: { Period: notAfter / Day - 2, Seq: number(seq) }, nonce: b.subarray(13, 37), sealed: b.subarray(37, 1061), signed: b.subarray(0, 1061), sig: b.subarray(1061) }
}

const signInput = (point, signed) => cat(ascii('rv1'), point, signed)

function verify(r, point) {
  under({}, 'ErrPoint', () => edKey(point))
  verifyPlain(point, signInput(point, r.signed), r.sig)
}

function validate(b, w) {
  const r = split(b)
  if (r.notAfter <= w.Now || r.notAfter > w.Now + Ahead) refuse('ErrNotAfter')
  verify(r, unhex(w.Point))
  return r.stamp
}

function open(b, w) {
  const r = split(b), a = unhex(w.Key)
  if (r.stamp.Period !== w.Period) refuse('ErrNotAfter')
  verify(r, pointOf(a, w))
  const hint = under({}, 'ErrSealed', () => xchachaOpen(encryption(material(a, w)), r.nonce, r.sealed, zeros(0)))
  return { ...parseHint(hint), ...lean(r.stamp) }
}

function seal(hint, { Seq = 0, ...w }) {
  parseHint(hint)
  if (w.Period > LastPeriod) refuse('ErrNotAfter')
  if (Seq > MaxSeq) refuse('ErrSeq')
  const seed = unhex(w.Seed), m = material(edPublic(seed), w), nonce = unhex(w.Nonce)
  const [point, sign] = blind(seed, factor(m))
  const signed = cat(Buffer.from([1]), u32((w.Period + 2) * Day), u64(Seq), nonce, xchachaSeal(encryption(m), nonce, hint))
  return { Record: hex(cat(signed, sign(signInput(point, signed)))) }
}

function select(b) {
  const all = Array.from({ length: b.length / RecordSize }, (_, i) => b.subarray(i * RecordSize, (i + 1) * RecordSize))
  const seq = r => r.readBigUInt64BE(5)
  const order = (x, y) => seq(x) !== seq(y) ? (seq(x) > seq(y) ? -1 : 1) : Buffer.compare(sha256(x), sha256(y))
  return { Index: all.indexOf([...all].sort(order)[0]) }
}

const prefix = ascii('/rv/')
function dhtKey(b) {
  if (b.length !== prefix.length + 32 || !same(b.subarray(0, prefix.length), prefix)) refuse('ErrDHTKey')
  return { Point: hex(b.subarray(prefix.length)) }
}

export const messages = {
  PointOf: { parse: (b, w) => ({ Point: hex(pointOf(b, w)) }), derived: true },
  Seal: { parse: seal, derived: true },
  Validate: { parse: validate },
  Open: { parse: open },
  Select: { parse: select, derived: true, rounds: true },
  DHTKey: { parse: dhtKey, append: v => cat(prefix, unhex(v.Point)) },
  Hint: { parse: parseHint, append: v => pad(v, HintSize, hintFields) },
  Request: { parse: parseRequest, append: v => pad(v, ProxySize, requestFields) },
  Reply: { parse: parseReply, append: v => pad({ Type: 3, ...v }, ProxySize, replyFields) },
}
