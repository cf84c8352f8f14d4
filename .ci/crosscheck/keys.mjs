// Ed25519 and X25519 keys as identity/SPEC.md 1 and 2 ask for them. Signatures and key agreement are Node's; the
// checks of a point are written out, as no library has exactly these.

import crypto from 'node:crypto'
import { ascii, cat, hex, isZero, refuse, sha512 } from './bytes.mjs'

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

// Blinded keys (identity/SPEC.md 1.1). Points are [X, Y, Z, T] here, with x = X/Z, y = Y/Z and T = XY/Z.
export const L = 2n ** 252n + 27742317777372353535851937790883648493n
const Base = [15112221349535400772501151409588531511454012693041857206046113283949847762202n, 46316835694926478169428394003475163141307993866256225615783033603165251855960n]
const wide = ([x, y]) => [x, y, 1n, mod(x * y)]

function sum([X1, Y1, Z1, T1], [X2, Y2, Z2, T2]) {
  const A = (Y1 - X1) * (Y2 - X2), B = (Y1 + X1) * (Y2 + X2), C = 2n * D * T1 % P * T2, Z = 2n * Z1 * Z2
  const [E, F, G, H] = [B - A, Z - C, Z + C, B + A].map(mod)
  return [mod(E * F), mod(G * H), mod(F * G), mod(E * H)]
}

function times(n, p) {
  let r = [0n, 1n, 1n, 0n]
  for (; n; n >>= 1n, p = sum(p, p)) if (n & 1n) r = sum(r, p)
  return r
}

function encode([X, Y, Z]) {
  const inverse = power(Z, P - 2n), x = mod(X * inverse)
  return putLittle(mod(Y * inverse) | (x & 1n) << 255n)
}

export const little = b => BigInt('0x' + hex(Buffer.from(b).reverse()))
const putLittle = n => Buffer.from(n.toString(16).padStart(64, '0'), 'hex').reverse()
const scalar = (...parts) => little(sha512(...parts)) % L

// blindPublic: the public half, from A and the factor of 64 bytes.
export function blindPublic(a, factor) {
  edKey(a)
  const p = wide(point(a)), [X, Y, Z] = times(L, p)
  const h = little(factor) % L
  if (X !== 0n || Y !== Z || h === 0n) refuse('ErrKey')
  return encode(times(h, p))
}

// blind: the private half, from the seed of A: the public key and what signs.
export function blind(seed, factor) {
  const [low, nonce] = [0, 32].map(i => sha512(seed).subarray(i, i + 32))
  low[0] &= 248
  low[31] = low[31] & 127 | 64
  const s = little(factor) % L * (little(low) % L) % L
  const key = encode(times(s, wide(Base)))
  const prefix = sha512(ascii('kinloom/blind-nonce/1'), nonce, factor).subarray(0, 32)
  return [key, m => {
    const r = scalar(prefix, m), R = encode(times(r, wide(Base)))
    return cat(R, putLittle((r + scalar(R, key, m) * s) % L))
  }]
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

// verifyPlain: Ed25519 over a message as it is.
export function verifyPlain(key, message, signature) {
  if (!crypto.verify(null, message, crypto.createPublicKey(jwk('Ed25519', key)), signature)) refuse('ErrSignature')
}

export function verify(key, context, message, signature) {
  verifyPlain(key, input(context, message), signature)
}

export const sign = (seed, context, message) => crypto.sign(null, input(context, message), crypto.createPrivateKey(pkcs8(0x70, seed)))
