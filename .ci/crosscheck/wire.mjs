// protocol/wire/SPEC.md: frames, cells, Padmé sizes.

import { cat, hex, putVarint, refuse, same, sha256, unhex, varint } from './bytes.mjs'

export const MaxFrame = 32768, CellSize = 16384, MinCell = 256
const CellHeader = 33

export function padme(n) {
  if (n <= MinCell) return MinCell
  const e = Math.floor(Math.log2(n)), s = Math.floor(Math.log2(e)) + 1
  const step = 2 ** (e - s)
  return Math.ceil(n / step) * step
}

function parseFrame(b, { Limit = MaxFrame } = {}) {
  // The length is refused at the byte that makes it too large, so before a later byte is looked at.
  let sum = 0n
  for (let i = 0; i < 9 && i < b.length; i++) {
    sum |= BigInt(b[i] & 127) << BigInt(7 * i)
    if (sum > BigInt(Limit)) refuse('ErrFrameSize')
    if (b[i] < 128) break
  }
  const [n, start] = varint(b, 0, 9, 'ErrFrameVarint', 'ErrFrameCut')
  if (n === 0n) refuse('ErrFrameSize')
  const end = start + Number(n)
  if (b.length < end) refuse('ErrFrameCut')
  return { Body: hex(b.subarray(start, end)) }
}

export function parseCell(b) {
  if (b.length < MinCell || b.length > CellSize || padme(b.length) !== b.length) refuse('ErrCellSize')
  if (b[0] !== 1) refuse('ErrCellVersion')
  const id = b.subarray(1, CellHeader), sealed = b.subarray(CellHeader)
  if (!same(sha256(sealed), id)) refuse('ErrCellID')
  return { ID: hex(id), Sealed: hex(sealed) }
}

export const messages = {
  Frame: { parse: parseFrame, append: v => cat(putVarint(v.Body.length / 2), unhex(v.Body)) },
  Cell: { parse: parseCell, append: v => cat(Buffer.from([1]), sha256(unhex(v.Sealed)), unhex(v.Sealed)) },
  Padme: { parse: b => ({ Size: padme(b.readUInt32BE()) }), derived: true, rounds: true },
}
