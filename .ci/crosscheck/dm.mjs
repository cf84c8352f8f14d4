// protocol/dm/SPEC.md: frames of a stream between two devices.

import { refuse, under } from './bytes.mjs'
import { bstr, decode, list, read, uint, write } from './cbor.mjs'
import { CellSize, MaxFrame, MinCell } from './wire.mjs'

const MaxCells = 126, MaxBundle = 4096, MaxNews = 13312

const type = [1, 'Type', uint(16)]
const fields = {
  Cells: [type, [2, 'Cells', list(bstr())]],
  Nack: [type, [2, 'Cell', bstr(32)], [3, 'Code', uint(16)]],
  WantBundle: [type],
  Bundle: [type, [2, 'Bundle', bstr(), 'optional'], [3, 'News', bstr(), 'optional']],
  Bye: [type],
}
const names = Object.keys(fields)
const size = s => (s ?? '').length / 2

function parseFrame(b) {
  if (b.length > MaxFrame) refuse('ErrLimit')
  const [name, v] = under({}, 'ErrMalformed', () => {
    const m = decode(b)
    if (m instanceof Map && m.keys().next().value !== 1n) refuse('ErrType') // key 1 stands first
    const name = names[read(m, [type]).Type - 1] ?? refuse('ErrType')
    return [name, read(m, fields[name])]
  })
  if (name === 'Cells') {
    if (v.Cells.length === 0) refuse('ErrMalformed')
    if (v.Cells.length > MaxCells) refuse('ErrLimit')
    if (v.Cells.some(c => size(c) < MinCell || size(c) > CellSize)) refuse('ErrCell')
  }
  if (name === 'Nack' && v.Code === 0) refuse('ErrMalformed')
  if (size(v.Bundle) > MaxBundle || size(v.News) > MaxNews) refuse('ErrLimit')
  return v
}

const appendFrame = v => write(v, fields[names[v.Type - 1]])

export const messages = Object.fromEntries([...names, 'Frame'].map(name => [name, { parse: parseFrame, append: appendFrame }]))
// A list of cells has no field for its type: the value of the vector is the list alone.
messages.Cells = {
  parse: b => { const { Cells } = parseFrame(b); return { Cells } },
  append: v => appendFrame({ Type: 1, ...v }),
}
