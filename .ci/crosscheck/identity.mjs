// identity/SPEC.md: ids, device records, logs.

import { ascii, cat, hex, lean, refuse, Refused, sha256, under, zeros } from './bytes.mjs'
import { bstr, decode, int, list, read, tstr, uint, write } from './cbor.mjs'
import { edKey, verify, xKey } from './keys.mjs'

const Alphabet = '123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz'
const Day = 86400, MaxTime = 253402300799, MaxSigned = 1024, MaxEntries = 2048, MaxDevices = 32

const b32 = bstr(32)
const preface = [[1, 'suite', uint(16)], [2, 'version', uint(16)]]
const recordFields = [...preface, [3, 'person', b32], [4, 'device', b32], [5, 'olm', b32], [6, 'rendezvous', b32],
  [7, 'notBefore', int], [8, 'expiry', int], [9, 'capabilities', list(tstr), 'optional']]
const entryFields = [...preface, [3, 'person', b32], [4, 'seq', uint(64)], [5, 'prev', b32], [6, 'time', int], [7, 'type', uint(16)]]
const certificate = [[1, 'id', b32], [2, 'record', b32], [3, 'notBefore', int], [4, 'expiry', int]]
const bodies = { 1: [], 2: [[1, 'key', b32]], 3: [...certificate, [5, 'proof', bstr(64)]], 4: certificate, 5: [[1, 'id', b32]] }

const bin = s => Buffer.from(s, 'hex')
export const deviceID = key => sha256(ascii('kinloom/device-id/1'), key)

function base58(b) {
  let n = BigInt('0x' + hex(b)), s = ''
  for (; n; n /= 58n) s = Alphabet[Number(n % 58n)] + s
  for (const x of b) {
    if (x) break
    s = '1' + s
  }
  return s
}

export const did = key => 'did:key:z' + base58(cat(Buffer.from([0xed, 1]), key))

function parseDID(b) {
  const s = b.toString(), head = 'did:key:z'
  if (!s.startsWith(head) || s.length !== 56) refuse('ErrDID')
  let n = 0n
  for (const c of s.slice(head.length)) {
    const k = Alphabet.indexOf(c)
    n = k < 0 ? refuse('ErrDID') : n * 58n + BigInt(k)
  }
  const raw = bin(n.toString(16).padStart(68, '0')), key = raw.subarray(2)
  if (raw.length !== 34 || did(key) !== s) refuse('ErrDID')
  under({}, 'ErrDID', () => edKey(key))
  return hex(key)
}

// signed splits `signature 64 | body`.
export const signed = b => b.length > 64 ? [b.subarray(0, 64), b.subarray(64)] : refuse('ErrTruncated')

function inForce(m) {
  const p = read(m, preface)
  if (p.suite !== 1) refuse('ErrSuite')
  if (p.version !== 1) refuse('ErrVersion')
}

function interval(notBefore, expiry, name) {
  if (notBefore < 0 || expiry <= notBefore || expiry > MaxTime || expiry - notBefore > 90 * Day) refuse(name)
}

export function parseRecord(b) {
  if (b.length > MaxSigned) refuse('ErrTooLarge')
  const [signature, body] = signed(b)
  const m = decode(body)
  inForce(m)
  const r = read(m, recordFields)
  interval(r.notBefore, r.expiry, 'ErrRecord')
  const caps = r.capabilities ?? []
  if (caps.length > 16 || caps.some((c, i) => !/^[a-z0-9\-./]{1,32}$/.test(c) || (i > 0 && caps[i - 1] >= c))) refuse('ErrRecord')
  for (const k of [r.person, r.device, r.rendezvous]) edKey(bin(k))
  xKey(bin(r.olm))
  verify(bin(r.device), 'kinloom/device-record/1', body, signature)
  const { suite, version, person, device, olm, ...rest } = r
  return { hash: hex(sha256(b)), person: did(bin(person)), device, deviceID: hex(deviceID(bin(device))), olm, ...rest }
}

class Log {
  constructor(person) {
    Object.assign(this, { person, seq: 0, prev: zeros(32), keys: [], devices: [] })
  }

  add(b) {
    if (this.seq >= MaxEntries) refuse('ErrTooMany')
    if (b.length > MaxSigned) refuse('ErrTooLarge')
    const [signature, body] = signed(b)
    const m = decode(body)
    inForce(m)
    const e = read(m, entryFields)
    if (!m.has(8n)) refuse('ErrMissing')
    if (e.time < 0 || e.time > MaxTime) refuse('ErrEntry')
    if (e.person !== hex(this.person)) refuse('ErrPerson')
    if (e.seq !== this.seq || e.prev !== hex(this.prev)) refuse('ErrChain')
    if (!(e.type in bodies)) refuse('ErrUnknownEntry')
    const byRoot = e.type <= 2
    if (byRoot ? (e.type === 1) !== (this.seq === 0) : this.keys.length === 0) refuse('ErrEntry')
    verify(byRoot ? this.person : bin(this.keys.at(-1)), 'kinloom/idlog/1', body, signature)
    this.apply(e, read(m.get(8n), bodies[e.type]))
    this.prev = sha256(b)
    this.seq++
  }

  apply(e, body) {
    if (e.type === 2) {
      edKey(bin(body.key))
      if (this.keys.includes(body.key) || body.key === hex(this.person)) refuse('ErrEntry')
      this.keys.push(body.key)
    }
    if (e.type === 3) this.addDevice(e, body)
    if (e.type === 4) {
      const d = this.live(body.id)
      interval(body.notBefore, body.expiry, 'ErrEntry')
      Object.assign(d, { record: body.record, notBefore: body.notBefore, expiry: body.expiry, renewed: e.time })
    }
    if (e.type === 5) this.live(body.id).revoked = true
  }

  addDevice(e, { id: key, record, notBefore, expiry, proof }) {
    edKey(bin(key))
    interval(notBefore, expiry, 'ErrEntry')
    const id = hex(deviceID(bin(key)))
    if (this.devices.some(d => d.id === id)) refuse('ErrEntry')
    if (this.devices.filter(d => !d.revoked).length >= MaxDevices) refuse('ErrTooMany')
    verify(bin(key), 'kinloom/device-proof/1', cat(this.person, bin(record)), bin(proof))
    this.devices.push({ id, record, notBefore, expiry, added: e.time, renewed: 0, revoked: false })
  }

  live(id) {
    const d = this.devices.find(d => d.id === id) ?? refuse('ErrNotInLog')
    return d.revoked ? refuse('ErrRevoked') : d
  }
}

function parseLog(b) {
  const m = decode(b)
  if (!Array.isArray(m) || m.length !== 2 || m[0]?.length !== 32 || !Array.isArray(m[1])) refuse('ErrType')
  edKey(m[0])
  const l = new Log(m[0])
  let ends
  try {
    for (const e of m[1]) l.add(e)
  } catch (e) {
    if (!(e instanceof Refused)) throw e
    ends = e.refusal
  }
  if (l.keys.length === 0) refuse(ends ?? 'ErrIncomplete')
  return { person: did(m[0]), head: hex(l.prev), seq: l.seq - 1, logKey: l.keys.at(-1), devices: l.devices, ...(ends && { ends }) }
}

// again encodes a record from the value of its vector; what is signed is the rest of the bytes.
function recordAgain(v, b) {
  const { person, device, olm, rendezvous, notBefore, expiry, capabilities } = v
  const key = parseDID(Buffer.from(person))
  return cat(b.subarray(0, 64), write({ suite: 1, version: 1, person: key, device, olm, rendezvous, notBefore, expiry, capabilities }, recordFields))
}

export const messages = {
  did: { parse: parseDID, append: v => Buffer.from(did(bin(v))) },
  'device-record': { parse: parseRecord, append: recordAgain },
  log: { parse: parseLog },
}
