// protocol/contact/SPEC.md 2: the invite as bytes, link and QR text.

import { cat, hex, lean, refuse, same, sha256, u32, unhex } from './bytes.mjs'

const Fixed = 1 + 16 + 32 + 16 + 4 + 1, Sum = 4, MaxAddresses = 5, MaxAddress = 127
const checksum = b => sha256(b).subarray(0, Sum)
const Link = 'kinloom:i#', QR = 'KINLOOM:'

// relayed is what the short form of an address stands for: /p2p/<Ed25519 key>/p2p-circuit.
const relayHead = unhex('a503260024080112' + '20'), circuit = unhex('a202')
const relayed = key => cat(relayHead, key, circuit)

function split(b) {
  const n = b.length - 32 - relayHead.length - circuit.length
  if (n < 1 || !same(b.subarray(n, n + relayHead.length), relayHead) || !same(b.subarray(-2), circuit)) return [b]
  return [b.subarray(0, n), b.subarray(n + relayHead.length, -2)]
}

export function parsePayload(b) {
  if (b.length === 0) refuse('ErrInviteTruncated')
  const sound = b.length > Sum && same(checksum(b.subarray(0, -Sum)), b.subarray(-Sum))
  if (b[0] !== 1) refuse(sound ? 'ErrInviteVersion' : 'ErrInviteBroken')
  if (b.length < Fixed) refuse('ErrInviteTruncated')
  const flags = b[Fixed - 1], count = flags >> 4 & 7
  const Addresses = []
  let i = Fixed, form = count >= 1 && count <= MaxAddresses
  for (let k = 0; k < count; k++) {
    if (i >= b.length) refuse('ErrInviteTruncated')
    const short = b[i] >> 7 === 1, n = b[i] & 127, end = i + 1 + n
    if (end > b.length) refuse('ErrInviteTruncated')
    const bytes = b.subarray(i + 1, end)
    form &&= short ? n > 32 : n > 0 && split(bytes).length === 1
    Addresses.push(hex(short ? cat(bytes.subarray(0, -32), relayed(bytes.subarray(-32))) : bytes))
    i = end
  }
  if (b.length < i + Sum) refuse('ErrInviteTruncated')
  if (b.length > i + Sum || !sound) refuse('ErrInviteBroken')
  if (flags & 128) refuse('ErrInviteVersion')
  if (!form) refuse('ErrInviteBroken')
  return lean({
    Person: hex(b.subarray(1, 17)), Transport: hex(b.subarray(17, 49)), Token: hex(b.subarray(49, 65)),
    Expiry: b.readUInt32BE(65), Many: (flags & 1) === 1, LAN: (flags & 2) === 2, Addresses,
  })
}

export function appendPayload(v) {
  const flags = (v.Many ? 1 : 0) | (v.LAN ? 2 : 0) | v.Addresses.length << 4
  const addresses = v.Addresses.map(a => {
    const [address, key] = split(unhex(a))
    return key ? cat(Buffer.from([128 | address.length + 32]), address, key) : cat(Buffer.from([address.length]), address)
  })
  const b = cat(Buffer.from([1]), unhex(v.Person), unhex(v.Transport), unhex(v.Token), u32(v.Expiry ?? 0), Buffer.from([flags]), ...addresses)
  return cat(b, checksum(b))
}

// Base45 (RFC 9285): two bytes in three characters, one in two; the lowest digit first.
const Base45 = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ $%*+-./:'

function base45(b) {
  let s = ''
  for (let i = 0; i < b.length; i += 2) {
    const two = i + 1 < b.length
    let v = two ? b.readUInt16BE(i) : b[i]
    for (let k = two ? 3 : 2; k > 0; k--, v = Math.floor(v / 45)) s += Base45[v % 45]
  }
  return s
}

function unbase45(s) {
  const out = []
  for (let i = 0; i < s.length; i += 3) {
    const group = s.slice(i, i + 3)
    let v = 0
    for (const c of [...group].reverse()) {
      const k = Base45.indexOf(c)
      v = k < 0 ? refuse('ErrInviteBroken') : v * 45 + k
    }
    if (v > 65535) refuse('ErrInviteBroken')
    if (group.length === 1 || (group.length === 2 && v > 255)) break // the rest of it was cut off
    out.push(...(group.length === 3 ? [v >> 8, v & 255] : [v]))
  }
  return Buffer.from(out)
}

function unbase64(s) {
  if (!/^[A-Za-z0-9_-]*$/.test(s)) refuse('ErrInviteBroken')
  return Buffer.from(s, 'base64url') // a lone character at the end is the rest of a cut, and passed over
}

const trim = s => s.replace(/^[\t\r\n <>"'`]+|[\t\r\n<>"'`]+$/g, '')

// parseInvite reads both text forms. Each has one spelling: what was read is written again and compared.
export function parseInvite(b, { Now } = {}) {
  const closed = trim(b.toString().replace(/\s/g, '')), link = closed.startsWith(Link)
  const text = link ? closed : trim(b.toString()).replace(/[\t\r\n]/g, '')
  if (!link && !text.startsWith(QR)) {
    const begun = s => s.startsWith(closed) && closed.length >= 'kinloom'.length
    refuse(begun(Link) || begun(QR) ? 'ErrInviteTruncated' : 'ErrInviteForeign')
  }
  const rest = text.slice(link ? Link.length : QR.length)
  const payload = link ? unbase64(rest) : unbase45(rest)
  const v = parsePayload(payload)
  if ((link ? payload.toString('base64url') : base45(payload)) !== rest) refuse('ErrInviteBroken')
  if (Now !== undefined && v.Expiry && Now >= v.Expiry * 3600) refuse('ErrInviteExpired')
  return v
}

// appendInvite writes the form that the vector has.
export function appendInvite(v, b) {
  const payload = appendPayload(v)
  return Buffer.from(b.toString().startsWith(Link) ? Link + payload.toString('base64url') : QR + base45(payload))
}

export { MaxAddress }
