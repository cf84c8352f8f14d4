// protocol/contact/SPEC.md: messages of the exchange, hello, later verification, and the transcript worked through.

import crypto from 'node:crypto'
import fs from 'node:fs'
import { ascii, cat, hex, hkdf, isZero, lean, refuse, same, sha256, u16, u32, under, unhex, zeros } from './bytes.mjs'
import { bool, bstr, decode, list, read, struct, tstr, uint, write } from './cbor.mjs'
import { appendInvite, appendPayload, MaxAddress, parseInvite, parsePayload } from './invite.mjs'
import { sign } from './keys.mjs'

const MaxMessage = 131072, MaxShort = 512, MaxMaterial = MaxMessage - MaxShort, MaxSuites = 8, MaxBundle = 4096, MaxName = 128, MaxReach = 8
const MaxEntry = 1024, MaxLog = 2048, MaxVersions = 8, MaxCaps = 8, MaxCap = 16, MaxHello = 16896, AnswerSize = 512, Room = 512

const type = [1, 'Type', uint(16)]
const fields = {
  Ask: [type, [2, 'Suites', list(uint(16))], [3, 'Token', bstr(16)], [4, 'Commit', bstr(32)]],
  Offer: [type, [2, 'Suite', uint(16)], [3, 'Nonce', bstr(32)], [4, 'Material', bstr()]],
  Reveal: [type, [2, 'Nonce', bstr(32)], [3, 'Material', bstr()], [4, 'Sig', bstr(64)]],
  Accept: [type, [2, 'Request', bool], [3, 'Sig', bstr(64)]],
  Refuse: [type, [2, 'Code', uint(16)]],
}
const names = Object.keys(fields)

const materialFields = [[1, 'Entries', list(bstr())], [2, 'Record', bstr()], [3, 'Static', bstr(), 'optional'], [4, 'Once', bstr(), 'optional'],
  [5, 'Name', tstr, 'optional'], [6, 'Addresses', list(bstr()), 'optional']]

const limits = struct([[1, 'Frame', uint(32), 'optional'], [2, 'Cells', uint(32), 'optional']])
const helloFields = tags => [type, [2, 'Versions', list(uint(16))], [3, 'Caps', list(tstr), 'optional'], [4, 'Limits', limits], tags]
const forms = {
  Hello: { number: 1, fields: helloFields([5, 'Tags', bstr()]) },
  Answer: { number: 2, fields: helloFields([5, 'Tag', bstr(16)]) },
}

const size = s => (s ?? '').length / 2
const within = (n, most) => n >= 1 && n <= most ? undefined : refuse('ErrLimit')

function parseMessage(b) {
  if (b.length > MaxMessage) refuse('ErrLimit')
  const [name, v] = under({ ErrLimit: 'ErrLimit' }, 'ErrMalformed', () => {
    const m = decode(b)
    const name = names[read(m, [type]).Type - 1] ?? refuse('ErrType')
    if (!['Offer', 'Reveal'].includes(name) && b.length > MaxShort) refuse('ErrLimit')
    return [name, read(m, fields[name])]
  })
  if (name === 'Ask') within(v.Suites.length, MaxSuites)
  if (name === 'Refuse' && v.Code === 0) refuse('ErrMalformed')
  if ('Material' in v) within(size(v.Material), MaxMaterial)
  return v
}

function parseMaterial(b) {
  within(b.length, MaxMaterial)
  const v = under({}, 'ErrMalformed', () => read(decode(b), materialFields))
  within(v.Entries.length, MaxLog)
  for (const x of [...v.Entries, v.Record]) within(size(x), MaxEntry)
  if (size(v.Static) > MaxBundle || size(v.Once) > MaxBundle) refuse('ErrLimit')
  if (Buffer.byteLength(v.Name ?? '') > MaxName || (v.Addresses ?? []).length > MaxReach) refuse('ErrLimit')
  for (const a of v.Addresses ?? []) within(size(a), MaxAddress)
  return v
}

// hello reads a padded message; a limit that is broken has a name of its own.
function hello(b, { number, fields }) {
  if (b.length > (number === 1 ? MaxHello : AnswerSize)) refuse('ErrHelloLimit')
  if (b.length < 2 || b.length < 2 + b.readUInt16BE()) refuse('ErrHello')
  const end = 2 + b.readUInt16BE()
  if (!isZero(b.subarray(end))) refuse('ErrHello')
  const v = under({}, 'ErrHello', () => read(decode(b.subarray(2, end)), fields))
  if (v.Type !== number) refuse('ErrHello')
  const caps = v.Caps ?? []
  if (v.Versions.length < 1 || v.Versions.length > MaxVersions || caps.length > MaxCaps) refuse('ErrHelloLimit')
  if (caps.some(c => c === '' || Buffer.byteLength(c) > MaxCap)) refuse('ErrHelloLimit')
  if (number === 1 && ![64, 256, 1024].includes(size(v.Tags) / 16)) refuse('ErrHelloLimit')
  if (b.length !== (number === 1 ? size(v.Tags) + Room : AnswerSize)) refuse('ErrHello')
  return lean({ ...v, Limits: Object.keys(v.Limits).length > 0 ? v.Limits : undefined })
}

function appendHello(v, { number, fields }) {
  const b = write(v, fields)
  return cat(u16(b.length), b, zeros((number === 1 ? size(v.Tags) + Room : AnswerSize) - 2 - b.length))
}

// A PeerID of an Ed25519 key: the key itself behind a fixed head.
const peerHead = unhex('002408011220')
function transport(b) {
  if (b.length !== peerHead.length + 32 || !same(b.subarray(0, peerHead.length), peerHead)) refuse('ErrTransport')
  return { Key: hex(b.subarray(peerHead.length)) }
}

function fingerprint(b) {
  const keys = [b.subarray(0, 32), b.subarray(32)].sort(Buffer.compare)
  const okm = Buffer.from(crypto.hkdfSync('sha512', cat(...keys), zeros(0), ascii('kinloom/contact/1 fingerprint'), 128))
  const groups = Array.from({ length: 16 }, (_, i) => String(okm.readBigUInt64BE(8 * i) % 10000n).padStart(4, '0'))
  return { Digits: [0, 4, 8, 12].map(i => groups.slice(i, i + 4).join(' ')).join('\n') }
}

// whole works testdata/transcript.json through: section 4.2.
function whole(exchanges) {
  const H = (label, ...parts) => sha256(...[ascii(label), ...parts].flatMap(p => [u32(p.length), p]))
  const list = fs.readFileSync(new URL('../../identity/keyfile/english.txt', import.meta.url), 'utf8').split('\n').filter(w => w !== '')
  const bad = []
  let n = 0
  const equal = (what, got, want) => {
    n++
    if (got !== want) bad.push(`${what} is ${got}, want ${want}`)
  }
  equal('words in the list', list.length, 2048)
  for (const t of exchanges) {
    const b = name => unhex(t[name])
    const material = sha256(b('Material'))
    const transcript = H('kinloom/contact/1 transcript', b('Ask'), b('Offer'), b('Nonce'), material, b('InitiatorTransport'), b('ResponderTransport'))
    equal('commitment', hex(H('kinloom/contact/1 commitment', b('Nonce'), material)), t.Commitment)
    equal('transcript', hex(transcript), t.Transcript)
    const bits = BigInt('0x' + hex(hkdf(transcript, ascii('kinloom/contact/1 check words'), 8)))
    equal('check words', [53n, 42n, 31n].map(s => list[Number(bits >> s & 2047n)]).join(' '), t.Words.join(' '))
    const signed = [['Initiator', 'InitiatorSig', [1]], ['Responder', 'ContactSig', [2], [0]], ['Responder', 'RequestSig', [2], [1]]]
    for (const [who, name, front, behind = []] of signed) {
      const message = cat(Buffer.from(front), transcript, Buffer.from(behind)), seed = b(who + 'Seed')
      equal(name, hex(sign(seed, 'kinloom/contact/1', message)), t[name])
    }
  }
  return [n, bad]
}

export const wholes = { 'protocol/contact/testdata/transcript.json': whole }

const exchange = { parse: parseMessage, append: v => write(v, fields[names[v.Type - 1]]) }
const ofHello = form => ({ parse: b => hello(b, form), append: v => appendHello(v, form) })

export const messages = {
  ...Object.fromEntries([...names, 'Message'].map(name => [name, exchange])),
  Material: { parse: parseMaterial, append: v => write(v, materialFields) },
  Hello: ofHello(forms.Hello),
  Answer: ofHello(forms.Answer),
  Payload: { parse: parsePayload, append: appendPayload },
  Invite: { parse: parseInvite, append: appendInvite },
  Transport: { parse: transport, append: v => cat(peerHead, unhex(v.Key)) },
  Fingerprint: { parse: fingerprint, derived: true },
}
