// protocol/session/testdata/session.json and exchange.json: the key schedule of SPEC 3, and cells opened from the secrets
// beside them.

import { ascii, cat, gcmOpen, hex, refuse, same, unhex, zeros } from './bytes.mjs'
import { messages as eventMessages } from './event.mjs'
import { recipient } from './hpke.mjs'
import { deviceID } from './identity.mjs'
import { edPublic, xPublic } from './keys.mjs'
import { firstChain, resume } from './olm.mjs'
import { aad, binding, CapsuleSize, EncSize, info, Label, schedule, secretsOf, tag, transcript } from './session-keys.mjs'
import { parseBundle, parseCapsule, parseInner, parseOuter } from './session.mjs'
import { parseCell } from './wire.mjs'

const side = s => {
  const key = edPublic(unhex(s.DeviceSeed)), olmSeed = unhex(s.OlmSeed)
  return { person: unhex(s.Person), key, device: deviceID(key), olmSeed, olm: xPublic(olmSeed), record: s.RecordHash, head: s.Head }
}

function comparing() {
  const bad = []
  let n = 0
  const equal = (what, got, want) => {
    n++
    if (Buffer.isBuffer(got)) got = hex(got)
    if (got !== want) bad.push(`${what} is ${got}, want ${want}`)
  }
  return { bad, equal, count: () => n }
}

// derived works session.json through.
function derived(w) {
  const { bad, equal, count } = comparing()
  const sides = w.Sides.map(side)
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

  // The cells open, each by itself, as the start stands in front of both.
  const state = new Sessions(sides, [{ ...secrets, tagged: true }])
  for (const cell of w.Cells) check(state, cell, {}, equal)
  return [count(), bad]
}

// exchange opens the cells of exchange.json: of both sides, two renewals among them.
function exchange(w) {
  const { bad, equal, count } = comparing()
  const sides = w.Sides.map(side)
  const state = new Sessions(sides, [{ ...secretsOf(unhex(w.BundleSeed)), tagged: true }, ...w.AdvertSeeds.map(s => secretsOf(unhex(s)))])
  const u = parseBundle(unhex(w.Bundle), { Device: hex(sides[1].key), Now: w.Now })
  equal('bundle id', state.secrets[0].id, u.ID)
  const adverts = []
  for (const cell of w.Cells) adverts.push(...check(state, cell, cell.Olm, equal))
  for (const s of state.secrets.slice(1)) {
    const told = adverts.find(a => a.ID === hex(s.id)) ?? {}
    equal('advertised X-Wing key', s.xwing.public, told.XWing)
    equal('advertised Olm key', xPublic(s.olm), told.OlmKey)
  }
  equal('sessions', state.sessions.size, new Set(w.Cells.map(c => c.Session)).size)
  return [count(), bad]
}

// check opens a cell and compares all that is known of it. It returns the keys that were advertised in it.
function check(state, cell, olm, equal) {
  const from = state.sides[cell.From], to = state.sides[1 - cell.From]
  const conversation = unhex(eventMessages.PairID.parse(cat(from.person, to.person)).Conversation)
  const o = state.open(unhex(cell.Cell), cell.From, olm)
  equal('session of a cell', o.id, cell.Session)
  const texts = [], adverts = []
  for (const item of o.items) {
    const { plain, ratchet } = o.olm(unhex(item.Olm))
    if (o.capsule) equal('ratchet key', ratchet, o.capsule.OlmRatchet)
    const inner = parseInner(plain.subarray(32)), control = inner.Type >= 16
    equal('binding of a message', plain.subarray(0, 32), hex(binding(o.transcript, item.Seq, from.device, to.device, control ? zeros(32) : conversation)))
    if (!control) texts.push(unhex(inner.Payload).toString())
    if (inner.Advert) adverts.push(inner.Advert)
  }
  equal('texts', texts.join(' '), cell.Texts.join(' '))
  return adverts
}

// Sessions is what both sides know: SPEC 2 to 4 from the answering side.
class Sessions {
  constructor(sides, secrets) {
    Object.assign(this, { sides, secrets, sessions: new Map() })
  }

  open(b, sender, olm) {
    const sealed = unhex(parseCell(b).Sealed)
    const nonce = sealed.subarray(0, 12), mark = sealed.subarray(12, 20), rest = sealed.subarray(20)
    const [from, to] = [this.sides[sender], this.sides[1 - sender]]
    const found = []
    for (const s of this.sessions.values()) {
      const d = s.initiator === sender ? 0 : 1
      if (!same(tag(s.tag[d], nonce), mark)) continue
      found.push(() => ({ ...s, body: gcmOpen(s.key[d], nonce, rest, aad(s.id, from.device, to.device, d, 0)), olm: resume(unhex(olm[hex(s.id)])) }))
      for (const k of this.secrets.filter(k => !k.tagged)) found.push(() => this.start(rest, nonce, sender, k, s, olm))
    }
    for (const k of this.secrets.filter(k => k.tagged && same(tag(k.intro, nonce), mark))) {
      found.push(() => this.start(rest, nonce, sender, k, null, olm))
    }
    for (const f of found) {
      try {
        const o = f()
        return { ...o, items: parseOuter(o.body).Items ?? [] }
      } catch (e) {
        if (e.refusal !== 'ErrOpen') throw e // a tag is a hint: only the AEAD decides
      }
    }
    return refuse('no session or keys open a cell')
  }

  start(b, nonce, sender, keys, previous, olm) {
    const [from, to] = [this.sides[sender], this.sides[1 - sender]]
    const enc = b.subarray(0, EncSize), box = b.subarray(EncSize, EncSize + CapsuleSize), sealed = b.subarray(EncSize + CapsuleSize)
    const hpke = recipient(keys.xwing, enc, info(keys.id, to.device))
    const capsule = parseCapsule(hpke.open(box))
    const expected = { Device: hex(from.device), Record: from.record, Head: from.head, YourRecord: to.record, YourHead: to.head, Previous: previous ? hex(previous.id) : undefined }
    for (const [name, want] of Object.entries(expected)) {
      if (capsule[name] !== want) refuse(`${name} of a capsule`)
    }
    const carry = previous ? resume(unhex(olm[hex(previous.id)]))(unhex(capsule.Carry)).plain : zeros(32)
    const hash = transcript(capsule, to.device, keys.id, xPublic(keys.olm), enc)
    const k = schedule(hpke.export(ascii(Label), 32), previous ? previous.next : zeros(32), carry, hash)
    const body = gcmOpen(k.key[0], nonce, sealed, aad(k.id, from.device, to.device, 0, 1))
    const s = { ...k, initiator: sender, transcript: hash }
    this.sessions.set(hex(k.id), s)
    const first = firstChain({ ownIdentity: to.olmSeed, ownOneTime: keys.olm, identity: from.olm, base: unhex(capsule.OlmBase) })
    return { ...s, capsule, body, olm: first }
  }
}

export const wholes = { 'protocol/session/testdata/session.json': derived, 'protocol/session/testdata/exchange.json': exchange }
