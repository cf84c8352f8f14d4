// Olm (3DH and Double Ratchet): messages as bytes, opening them in a new session or from a state, and the pickles of
// libolm. libolm itself comes in libolm.mjs; it cannot give a plaintext that is no text.

import crypto from 'node:crypto'
import { ascii, cat, expand, extract, hmac, putVarint, refuse, same, varint, zeros } from './bytes.mjs'
import { agree } from './keys.mjs'

const Version = 3, Mac = 8
const hkdf = (salt, secret, info, n) => expand(extract(salt, secret), ascii(info), n)

// field | length | bytes, as in protobuf.
const field = (tag, b) => cat(Buffer.from([tag]), putVarint(b.length), b)

// prekey builds the message of type 0 that a start has in pieces.
export const prekey = ({ oneTime, base, identity, message }) =>
  cat(Buffer.from([Version]), field(0x0a, oneTime), field(0x12, base), field(0x1a, identity), field(0x22, message))

// parse reads both types: ratchet, counter, ciphertext; or the four parts of a prekey message.
export function parse(b, names) {
  const out = { version: b[0] }
  for (let i = 1; i < b.length;) {
    const tag = b[i], name = names[tag] ?? refuse('ErrOlm')
    const [n, end] = varint(b, i + 1, 10, 'ErrOlm', 'ErrOlm')
    i = end
    if ((tag & 7) === 0) out[name] = n
    else {
      out[name] = b.subarray(i, i + Number(n))
      i += Number(n)
    }
  }
  return out
}

export const parsePrekey = b => parse(b, { 0x0a: 'oneTime', 0x12: 'base', 0x1a: 'identity', 0x22: 'message' })
export const parseNormal = b => parse(b.subarray(0, -Mac), { 0x0a: 'ratchet', 0x10: 'counter', 0x22: 'text' })

// read opens a message with the chain key `chain` of the index `at`.
function read(b, chain, at) {
  const m = parseNormal(b)
  if (m.version !== Version || m.counter < at) refuse('ErrOlm')
  for (let n = BigInt(at); n < m.counter; n++) chain = hmac(chain, Buffer.from([2]))
  const keys = hkdf(zeros(0), hmac(chain, Buffer.from([1])), 'OLM_KEYS', 80)
  if (!same(hmac(keys.subarray(32, 64), b.subarray(0, -Mac)).subarray(0, Mac), b.subarray(-Mac))) refuse('ErrOlm')
  const d = crypto.createDecipheriv('aes-256-cbc', keys.subarray(0, 32), keys.subarray(64))
  return { ratchet: m.ratchet, plain: cat(d.update(m.text), d.final()) }
}

// resume opens one message from the state of a session in the layout of libolm's pickle: on a chain that is there, or
// on a new one, for which the ratchet turns.
export function resume(state) {
  let i = 4 + 1 + 3 * 32 // version, received, the three keys of the start
  const take = n => state.subarray(i, i += n)
  const list = f => Array.from({ length: take(4).readUInt32BE() }, f)
  const root = take(32)
  const senders = list(() => ({ public: take(32), private: take(32), key: take(32), at: take(4).readUInt32BE() }))
  const receivers = list(() => ({ ratchet: take(32), key: take(32), at: take(4).readUInt32BE() }))
  return b => {
    const { ratchet } = parseNormal(b)
    const chain = receivers.find(r => same(r.ratchet, ratchet))
    if (chain) return read(b, chain.key, chain.at)
    return read(b, hkdf(root, agree(senders[0].private, ratchet), 'OLM_RATCHET', 64).subarray(32), 0)
  }
}

// firstChain is the receiving side of a new session, with the private keys of the one it was started to.
export function firstChain({ ownIdentity, ownOneTime, identity, base }) {
  const secret = cat(agree(ownOneTime, identity), agree(ownIdentity, base), agree(ownOneTime, base))
  const start = hkdf(zeros(0), secret, 'OLM_ROOT', 64).subarray(32)
  return b => read(b, start, 0)
}

// Pickles: AES-256-CBC and 8 bytes of an HMAC, under keys that a password gives, in base64 without padding.
const pickleKeys = password => {
  const k = hkdf(zeros(0), ascii(password), 'Pickle', 80)
  return [k.subarray(0, 32), k.subarray(32, 64), k.subarray(64)]
}

export const base64 = b => b.toString('base64').replace(/=+$/, '')

export function lock(password, raw) {
  const [aes, mac, iv] = pickleKeys(password)
  const c = crypto.createCipheriv('aes-256-cbc', aes, iv)
  const sealed = cat(c.update(raw), c.final())
  return base64(cat(sealed, hmac(mac, sealed).subarray(0, Mac)))
}

export function unlock(password, pickle) {
  const [aes, mac, iv] = pickleKeys(password)
  const b = Buffer.from(pickle, 'base64'), sealed = b.subarray(0, -Mac)
  if (!same(hmac(mac, sealed).subarray(0, Mac), b.subarray(-Mac))) refuse('ErrOlm')
  const d = crypto.createDecipheriv('aes-256-cbc', aes, iv)
  return cat(d.update(sealed), d.final())
}
