// Ed25519 and X25519 keys as identity/SPEC.md 1 and 2 ask for them. Signatures and key agreement are Node's; the
// checks of a point are written out, as no library has exactly these.

import crypto from 'node:crypto'
import { ascii, cat, hex, isZero, refuse } from './bytes.mjs'

const P = 2n ** 255n - 19n
const D = 37095705934669439343138083508754565189542113879843219016388785533085940283555n
const mod = x => ((x % P) + P) % P

function power(base, e) {
  let r = 1n
  for (base %= P; e; e >>= 1n) {
    if (e & 1n) r = r * base % P
    base = base * base % P
  }
  return r
}

function point(b) {
  const n = BigInt('0x' + hex(Buffer.from(b).reverse()))
  const sign = n >> 255n, y = n & ((1n << 255n) - 1n)
  if (y >= P) refuse('ErrKey')
  const u = mod(y * y - 1n), v = mod(D * y * y + 1n)
  let x = mod(u * power(v, 3n) * power(mod(u * power(v, 7n)), (P - 5n) / 8n))
  if (mod(v * x * x) !== u) x = mod(x * power(2n, (P - 1n) / 4n))
  if (mod(v * x * x) !== u || (x === 0n && sign === 1n)) refuse('ErrKey')
  return [(x & 1n) === sign ? x : mod(-x), y]
}

function add([x1, y1], [x2, y2]) {
  const k = mod(D * x1 * x2 % P * y1 % P * y2)
  const inverse = a => power(a, P - 2n)
  return [mod((x1 * y2 + x2 * y1) * inverse(mod(1n + k))), mod((y1 * y2 + x1 * x2) * inverse(mod(1n - k)))]
}

// edKey: a point in its only encoding, not of low order.
export function edKey(b) {
  let p = point(b)
  for (let i = 0; i < 3; i++) p = add(p, p)
  if (p[0] === 0n && p[1] === 1n) refuse('ErrKey')
}

const jwk = (crv, x, d) => ({ key: { kty: 'OKP', crv, x: Buffer.from(x).toString('base64url'), ...(d && { d: Buffer.from(d).toString('base64url') }) }, format: 'jwk' })

// pkcs8 is the fixed head of a private key of 32 bytes in that form, by the last byte of its curve's number.
const pkcs8 = (curve, seed) => ({ key: cat(Buffer.from([0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, curve, 4, 0x22, 4, 0x20]), seed), format: 'der', type: 'pkcs8' })
const publicOf = key => Buffer.from(crypto.createPublicKey(key).export({ format: 'jwk' }).x, 'base64url')

export const edPublic = seed => publicOf(crypto.createPrivateKey(pkcs8(0x70, seed)))
export const xPublic = seed => publicOf(crypto.createPrivateKey(pkcs8(0x6e, seed)))

// agree is X25519; a shared secret of zero is refused.
export function agree(seed, peer) {
  let s
  try {
    s = crypto.diffieHellman({ privateKey: crypto.createPrivateKey(pkcs8(0x6e, seed)), publicKey: crypto.createPublicKey(jwk('X25519', peer)) })
  } catch {
    refuse('ErrKey')
  }
  return isZero(s) ? refuse('ErrKey') : s
}

// xKey: a key that has an effect on a shared secret.
export const xKey = b => void agree(Buffer.alloc(32, 1), b)

const input = (context, message) => cat(ascii(context), Buffer.from([0]), message)

export function verify(key, context, message, signature) {
  const k = crypto.createPublicKey(jwk('Ed25519', key))
  if (!crypto.verify(null, input(context, message), k, signature)) refuse('ErrSignature')
}

export const sign = (seed, context, message) => crypto.sign(null, input(context, message), crypto.createPrivateKey(pkcs8(0x70, seed)))
