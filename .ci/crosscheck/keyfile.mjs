// identity/keyfile/SPEC.md: the sealed keys of a node, and the recovery words.

import fs from 'node:fs'
import { argon2id } from '@noble/hashes/argon2.js'
import { ascii, cat, hex, hkdf, lean, refuse, same, sha256, u16, u64, under, unhex, xchachaOpen, zeros } from './bytes.mjs'
import { bstr, decode, list, rawMap, read, struct, uint, write } from './cbor.mjs'
import { recipient, xwing } from './hpke.mjs'
import { did } from './identity.mjs'

const Magic = 'kinloomk', Head = 8 + 2 + 8 + 4, Copy = 8192, EncSize = 1120
const repeat = (s, n) => Buffer.from(s.repeat(n).slice(0, n))
const Secrets = { passphrase: ascii('correct horse battery staple'), outside: repeat('outside!', 32), words: repeat('root seed ', 32) }

const english = fs.readFileSync(new URL('../../identity/keyfile/english.txt', import.meta.url), 'utf8').split('\n').filter(w => w !== '')

const slotFields = [[1, 'kind', uint(64)], [2, 'salt', bstr(16), 'optional'], [3, 't', uint(64), 'optional'], [4, 'm', uint(64), 'optional'],
  [5, 'p', uint(64), 'optional'], [6, 'key', bstr()]]
const bodyFields = [[1, 'slots', list(struct(slotFields))], [2, 'sealed', bstr()]]
const seed = (key, name, option) => [key, name, bstr(32), ...(option ? [option] : [])]
const payloadFields = [seed(1, 'person'), seed(2, 'root', 'optional'), seed(3, 'log', 'optional'), seed(4, 'device'), seed(5, 'olm'),
  seed(6, 'rendezvous'), [7, 'files', rawMap, 'optional'], [8, 'recipient', bstr(1216), 'optional']]

// A box is a nonce of XChaCha20-Poly1305 and what is sealed.
function xopen(key, box, aad) {
  if (box.length < 24 + 16) refuse('ErrOpen')
  return xchachaOpen(key, box.subarray(0, 24), box.subarray(24), aad)
}

function parse(how, b) {
  if (b.subarray(0, 8).toString('latin1') !== Magic) refuse('ErrNotKeyFile')
  const version = b.readUInt16BE(8), generation = b.readBigUInt64BE(10), length = b.readUInt32BE(18)
  if (version > 1) refuse('ErrNewer')
  if (version !== 1 || generation < 1n || length > Copy - 32 - Head || b.length < Head + length) refuse('ErrDamaged')
  const [m, body] = under({}, 'ErrDamaged', () => {
    const m = decode(b.subarray(Head, Head + length))
    return [m, read(m, bodyFields)]
  })
  const kinds = body.slots.map(s => s.kind)
  if (kinds.length < 1 || kinds.length > 8 || new Set(kinds).size !== kinds.length) refuse('ErrDamaged')
  if (kinds.includes(4) === (kinds.includes(1) || kinds.includes(2))) refuse('ErrDamaged')
  const slot = kind => body.slots.find(s => s.kind === kind)
  const { t, m: memory, p } = slot(1) ?? { t: 3, m: 65536, p: 4 }
  if (!(t >= 2 && t <= 10 && memory >= 19 * 1024 && memory <= 256 * 1024 && p >= 1 && p <= 8)) refuse('ErrArgon2Bounds')
  const dataKey = open(how, slot)
  const context = cat(ascii('kinloom/key-file/1'), zeros(1), u16(version), u64(generation), m.raw.get(1n))
  const v = under({}, 'ErrDamaged', () => {
    const payload = decode(xopen(hkdf(dataKey, ascii('kinloom/data-key/1/key file'), 32), unhex(body.sealed), context))
    const v = read(payload, payloadFields)
    return { ...v, files: payload.has(7n) ? Object.fromEntries([...payload.get(7n)].map(([k, id]) => [k, hex(id)])) : undefined }
  })
  return lean({ generation: Number(generation), dataKey: hex(dataKey), ...v, person: did(unhex(v.person)), recipient: undefined })
}

// open gives the data key by the one way that is asked for.
function open(how, slot) {
  const secret = Secrets[how], aad = s => cat(ascii('kinloom/key-slot/1'), zeros(1), write({ ...s, key: '' }, slotFields))
  const unwrap = (s, key, wrong) => under({}, wrong, () => xopen(key, unhex(s.key), aad(s)))
  const [one, two, three, four] = [1, 2, 3, 4].map(slot)
  switch (how) {
    case 'nothing':
      return four ? unhex(four.key) : refuse(one ? 'ErrPassphraseNeeded' : 'ErrOutsideNeeded')
    case 'passphrase':
      if (!one) refuse('ErrNoPassphrase')
      return unwrap(one, Buffer.from(argon2id(secret, unhex(one.salt), { t: one.t, m: one.m, p: one.p, dkLen: 32 })), 'ErrWrongPassphrase')
    case 'outside':
      return unwrap(two ?? refuse('ErrWrongOutside'), hkdf(secret, ascii('kinloom/key-slot/outside/1'), 32), 'ErrWrongOutside')
  }
  const box = unhex((three ?? refuse('ErrWrongRoot')).key)
  const pair = xwing(hkdf(secret, ascii('kinloom/backup-recipient/1'), 32))
  return under({}, 'ErrWrongRoot', () => recipient(pair, box.subarray(0, EncSize), ascii('kinloom/key-slot/root/1'), 3).open(box.subarray(EncSize)))
}

function words(b) {
  const typed = b.toString().toLowerCase().split(/\s+/).filter(w => w !== '')
  if (typed.length !== 24) refuse('ErrWordCount')
  let bits = 0n
  for (const w of typed) {
    const i = english.indexOf(w)
    bits = i < 0 ? refuse('ErrWord') : bits << 11n | BigInt(i)
  }
  const all = unhex(bits.toString(16).padStart(66, '0')), root = all.subarray(0, 32)
  if (!same(sha256(root).subarray(0, 1), all.subarray(32))) refuse('ErrWordChecksum')
  return hex(root)
}

const opened = how => ({ parse: b => parse(how, b), growing: true })

export const messages = {
  ...Object.fromEntries(['passphrase', 'outside', 'words', 'nothing'].map(how => [`key-file/${how}`, opened(how)])),
  words: { parse: words, derived: true, rounds: true }, // one blank is as good as another
}
