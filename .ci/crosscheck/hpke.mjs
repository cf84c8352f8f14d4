// X-Wing (ML-KEM-768 and X25519) and HPKE base mode over it, with HKDF-SHA256: RFC 9180 and the
// drafts that name KEM 0x647a. Node 20 has no ML-KEM, so that one part is @noble/post-quantum.

import { ml_kem768 } from '@noble/post-quantum/ml-kem.js'
import { ascii, cat, expand, extract, chachaOpen, gcmOpen, sha3, shake256, u16, zeros } from './bytes.mjs'
import { agree, xPublic } from './keys.mjs'

const cipherSize = 1088, label = Buffer.from('5c2e2f2f5e5c', 'hex')

// xwing makes a key pair of its 32-byte seed.
export function xwing(seed) {
  const all = shake256(96, seed)
  const { publicKey, secretKey } = ml_kem768.keygen(all.subarray(0, 64))
  const x = all.subarray(64)
  return { secretKey, x, public: cat(publicKey, xPublic(x)) }
}

export function decapsulate(pair, enc) {
  const ciphertext = enc.subarray(0, cipherSize), ephemeral = enc.subarray(cipherSize)
  const m = Buffer.from(ml_kem768.decapsulate(ciphertext, pair.secretKey))
  return sha3(m, agree(pair.x, ephemeral), ephemeral, xPublic(pair.x), label)
}

// recipient gives what opens the first message, and what exports. aead is 2, AES-256-GCM, or 3, ChaCha20-Poly1305.
export function recipient(pair, enc, info, aead = 2) {
  const suite = cat(ascii('HPKE'), u16(0x647a), u16(1), u16(aead))
  const labeledExtract = (salt, label, secret) => extract(salt, cat(ascii('HPKE-v1'), suite, ascii(label), secret))
  const labeledExpand = (key, label, info, n) => expand(key, cat(u16(n), ascii('HPKE-v1'), suite, ascii(label), info), n)
  const none = zeros(0)
  const context = cat(zeros(1), labeledExtract(none, 'psk_id_hash', none), labeledExtract(none, 'info_hash', info))
  const secret = labeledExtract(decapsulate(pair, enc), 'secret', none)
  const key = labeledExpand(secret, 'key', context, 32), nonce = labeledExpand(secret, 'base_nonce', context, 12)
  const exporter = labeledExpand(secret, 'exp', context, 32)
  return {
    open: sealed => (aead === 2 ? gcmOpen : chachaOpen)(key, nonce, sealed, none),
    export: (context, n) => labeledExpand(exporter, 'sec', context, n),
  }
}
