// protocol/session/SPEC.md 1 and 3: the secrets of a bundle, and the key schedule.

import { ascii, cat, expand, extract, hkdf, hmac, sha256, unhex, u16, u32, u64, zeros } from './bytes.mjs'
import { xwing } from './hpke.mjs'

export const Label = 'kinloom/session/1', EncSize = 1120, CapsuleSize = 345 + 16
const byte = n => Buffer.from([n])

export function transcript(c, recipient, bundle, olmKey, enc) {
  const h = k => unhex(c[k])
  return sha256(ascii(Label), u16(c.Suite), u32(c.Epoch), h('Record'), h('YourRecord'), h('Head'), h('YourHead'), h('Device'), recipient,
    bundle, olmKey, h('OlmBase'), h('OlmRatchet'), enc, c.Previous ? h('Previous') : zeros(16))
}

export function schedule(exported, next, carry, transcript) {
  const root = extract(transcript, cat(exported, next, carry))
  const label = (name, d) => cat(ascii(`${Label} ${name}`), d === undefined ? zeros(0) : byte(d))
  return {
    id: expand(root, label('id'), 16), next: expand(root, label('next'), 32),
    key: [0, 1].map(d => expand(root, label('key', d), 32)), tag: [0, 1].map(d => expand(root, label('tag', d), 32)),
  }
}

export const tag = (key, nonce) => hmac(key, nonce).subarray(0, 8)
export const binding = (transcript, seq, from, to, conversation) => sha256(ascii('kinloom/binding/1'), transcript, u64(seq), from, to, conversation)
export const aad = (session, from, to, d, form) => cat(ascii('kinloom/msg/1'), u16(1), u16(1), session, from, to, byte(d), byte(form))

// secretsOf makes all that a bundle holds of its seed: SPEC 1.
export function secretsOf(seed) {
  const part = (name, n) => hkdf(seed, ascii(`kinloom/bundle/1 ${name}`), n)
  return { xwing: xwing(part('xwing', 32)), olm: part('olm', 32), intro: part('intro', 32), id: part('id', 8) }
}

export const info = (bundle, to) => cat(ascii('kinloom/start/1'), u16(1), bundle, to)
