// protocol/session/testdata/session.json: the key schedule of SPEC 3, and cells opened from the secrets beside them.

import { ascii, cat, expand, extract, gcmOpen, hex, hkdf, hmac, refuse, sha256, unhex, u16, u32, u64, zeros } from './bytes.mjs'
import { messages as eventMessages } from './event.mjs'
import { recipient, xwing } from './hpke.mjs'
import { deviceID } from './identity.mjs'
import { edPublic, xPublic } from './keys.mjs'
import { firstChain } from './olm.mjs'
import { parseBundle, parseCapsule, parseInner, parseOuter } from './session.mjs'
import { parseCell } from './wire.mjs'

const Label = 'kinloom/session/1', EncSize = 1120, CapsuleSize = 345 + 16
const byte = n => Buffer.from([n])

function transcript(c, recipient, bundle, olmKey, enc) {
  const h = k => unhex(c[k])
  return sha256(ascii(Label), u16(c.Suite), u32(c.Epoch), h('Record'), h('YourRecord'), h('Head'), h('YourHead'), h('Device'), recipient,
    bundle, olmKey, h('OlmBase'), h('OlmRatchet'), enc, c.Previous ? h('Previous') : zeros(16))
}

function schedule(exported, next, carry, transcript) {
  const root = extract(transcript, cat(exported, next, carry))
  const label = (name, d) => cat(ascii(`${Label} ${name}`), d === undefined ? zeros(0) : byte(d))
  return {
    id: expand(root, label('id'), 16), next: expand(root, label('next'), 32),
    key: [0, 1].map(d => expand(root, label('key', d), 32)), tag: [0, 1].map(d => expand(root, label('tag', d), 32)),
  }
}

const tag = (key, nonce) => hmac(key, nonce).subarray(0, 8)
const binding = (transcript, seq, from, to, conversation) => sha256(ascii('kinloom/binding/1'), transcript, u64(seq), from, to, conversation)
const aad = (session, from, to, d, form) => cat(ascii('kinloom/msg/1'), u16(1), u16(1), session, from, to, byte(d), byte(form))

// secretsOf makes all that a bundle holds of its seed: SPEC 1.
function secretsOf(seed) {
  const part = (name, n) => hkdf(seed, ascii(`kinloom/bundle/1 ${name}`), n)
  return { xwing: xwing(part('xwing', 32)), olm: part('olm', 32), intro: part('intro', 32), id: part('id', 8) }
}

export const wholeFile = 'protocol/session/testdata/session.json'

export function whole(w) {
  const bad = []
  let n = 0
  const equal = (what, got, want) => {
    n++
    if (Buffer.isBuffer(got)) got = hex(got)
    if (got !== want) bad.push(`${what} is ${got}, want ${want}`)
  }
  const sides = w.Sides.map(s => ({
    person: unhex(s.Person), key: edPublic(unhex(s.DeviceSeed)), device: deviceID(edPublic(unhex(s.DeviceSeed))), olmSeed: unhex(s.OlmSeed),
    olm: xPublic(unhex(s.OlmSeed)), record: s.RecordHash, head: s.Head,
  }))
  const [a, b] = sides
  const conversation = unhex(eventMessages.PairID.parse(cat(a.person, b.person)).Conversation)

  // The values that stand alone.
  const k = schedule(...['Export', 'Next', 'Carry', 'Transcript'].map(f => unhex(w.Schedule[f])))
  equal('session id', k.id, w.Schedule.ID)
  equal('next', k.next, w.Schedule.NextOut)
  for (const d of [0, 1]) {
    equal(`key ${d}`, k.key[d], w.Schedule.Keys[d])
    equal(`tag key ${d}`, k.tag[d], w.Schedule.Tags[d])
  }
  const t = w.Transcript, c = parseCapsule(unhex(t.Capsule))
  const hash = transcript(c, unhex(t.Recipient), unhex(t.Bundle), unhex(t.OlmKey), unhex(t.Enc))
  equal('transcript', hash, t.Hash)
  equal('binding', binding(hash, 300, unhex(c.Device), unhex(t.Recipient), conversation), w.Binding)
  equal('aad', aad(k.id, unhex(c.Device), unhex(t.Recipient), 1, 1), w.AAD)
  equal('tag', tag(k.tag[0], unhex(t.Enc).subarray(0, 12)), w.Tag)

  // The bundle is what its seed makes.
  const u = parseBundle(unhex(w.Bundle), { Device: hex(b.key), Now: w.Now })
  const secrets = secretsOf(unhex(w.BundleSeed))
  equal('bundle id', secrets.id, u.ID)
  equal('intro tag key', secrets.intro, u.IntroTag)
  equal('Olm key', xPublic(secrets.olm), u.OlmKey)
  equal('Olm identity', b.olm, u.OlmIdentity)
  equal('X-Wing key', secrets.xwing.public, u.XWing)

  // The cells open.
  let seq = 0
  for (const cell of w.Cells) {
    if (cell.From !== 0) refuse('a cell that does not come from the first side')
    const o = open(unhex(cell.Cell), a, b, u, secrets)
    equal('session of a cell', o.session, cell.Session)
    equal('tag of a cell', o.tag, hex(tag(unhex(u.IntroTag), o.nonce)))
    const texts = []
    for (const item of o.items) {
      const { plain, ratchet } = o.olm(unhex(item.Olm))
      equal('ratchet key', ratchet, o.capsule.OlmRatchet)
      const inner = parseInner(plain.subarray(32))
      const control = inner.Type >= 16
      equal('binding of a message', plain.subarray(0, 32), hex(binding(o.transcript, item.Seq, a.device, b.device, control ? zeros(32) : conversation)))
      if (!control) texts.push(unhex(inner.Payload).toString())
      equal('seq', item.Seq, ++seq)
    }
    equal('texts', texts.join(' '), cell.Texts.join(' '))
  }
  return [n, bad]
}

// open does what the answering side does with a cell in start form.
function open(b, from, to, bundle, secrets) {
  const sealed = unhex(parseCell(b).Sealed)
  let i = 0
  const take = n => sealed.subarray(i, i += n)
  const nonce = take(12), mark = take(8), enc = take(EncSize), box = take(CapsuleSize), body = sealed.subarray(i)
  const hpke = recipient(secrets.xwing, enc, cat(ascii('kinloom/start/1'), u16(1), secrets.id, to.device))
  const capsule = parseCapsule(hpke.open(box))
  for (const [name, want] of Object.entries({ Device: hex(from.device), Record: from.record, Head: from.head, YourRecord: to.record, YourHead: to.head })) {
    if (capsule[name] !== want) refuse(`${name} of the capsule`)
  }
  const hash = transcript(capsule, to.device, secrets.id, unhex(bundle.OlmKey), enc)
  const k = schedule(hpke.export(ascii(Label), 32), zeros(32), zeros(32), hash)
  const outer = parseOuter(gcmOpen(k.key[0], nonce, body, aad(k.id, from.device, to.device, 0, 1)))
  const olm = firstChain({ ownIdentity: to.olmSeed, ownOneTime: secrets.olm, identity: from.olm, base: unhex(capsule.OlmBase) })
  return { nonce, tag: mark, session: k.id, transcript: hash, capsule, items: outer.Items, olm }
}
