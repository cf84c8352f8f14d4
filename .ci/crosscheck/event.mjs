// protocol/event/SPEC.md: events, their bodies, ids, the clock.

import { ascii, cat, hex, number, refuse, sha256, under, unhex, u32 } from './bytes.mjs'
import { bstr, decode, list, rawMap, read, struct, tstr, uint, write } from './cbor.mjs'
import { edKey, verify } from './keys.mjs'
import { order } from './order.mjs'

const MaxEvent = 14336, MaxBody = 13312, MaxParents = 20, MaxKey = 64, MaxText = 12288
const MaxReaction = 64, MaxName = 256, MaxEntries = 64, MaxMarks = 128, MaxRefused = 128, MaxTyping = 60
const MaxPlaces = 8, MaxPlace = 127
const MaxSeq = 2n ** 53n - 1n, MaxClock = 2n ** 63n - 1n, MaxAhead = 24n * 3600n * 1000n

const id = bstr(32), u64 = uint(64)
const fields = [[1, 'Seq', u64, 'spelled'], [2, 'Parents', list(id), 'spelled'], [3, 'Clock', u64], [4, 'Type', u64, 'spelled'],
  [5, 'Key', tstr, 'spelled'], [6, 'Body', rawMap]]

const length = s => Buffer.byteLength(s)
const ascending = ids => ids.every((x, i) => i === 0 || ids[i - 1] < x)

// parse is what event and body have in common: size first, CBOR second.
function parse(b, most, fields) {
  if (b.length > most) refuse('ErrSize')
  return under({ ErrUTF8: 'ErrUTF8' }, 'ErrMalformed', () => read(decode(b), fields))
}

function parseEvent(b) {
  const e = parse(b, MaxEvent, fields)
  if (e.Body.length / 2 > MaxBody) refuse('ErrSize')
  const type = e.Type ?? 1
  if (type === 0 || type > 191 || e.Type === 1) refuse('ErrType')
  const passing = type >= 128
  if (passing ? e.Seq !== undefined : e.Seq === undefined || e.Seq === 0 || BigInt(e.Seq) > MaxSeq) refuse('ErrSeq')
  const parents = e.Parents
  if (parents && (passing || parents.length === 0 || parents.length > MaxParents || !ascending(parents))) refuse('ErrParents')
  if (BigInt(e.Clock) > MaxClock) refuse('ErrClock')
  if (e.Key !== undefined && (type < 64 || type > 127 || e.Key === '' || length(e.Key) > MaxKey)) refuse('ErrKey')
  return { ...e, Type: type }
}

const appendEvent = v => write({ ...v, Type: v.Type === 1 ? undefined : v.Type }, fields)

function body(fields, check = () => {}) {
  return {
    parse: b => {
      const v = parse(b, MaxBody, fields)
      check(v)
      return v
    },
    append: v => write(v, fields),
  }
}

function text({ Text }) {
  if (Text === '') refuse('ErrEmpty')
  if (length(Text) > MaxText) refuse('ErrTooLong')
}
const atMost = (name, most) => v => length(v[name]) > most ? refuse('ErrTooLong') : undefined

function entries({ Entries, Records }) {
  for (const l of [Entries, Records ?? ['00']]) {
    if (l.length === 0 || l.length > MaxEntries || l.includes('')) refuse('ErrCount')
  }
}

function marks({ Marks }) {
  if (Marks.length === 0 || Marks.length > MaxMarks) refuse('ErrCount')
  if (!ascending(Marks.map(m => m.Device)) || Marks.some(m => m.Seq === 0 || BigInt(m.Seq) > MaxSeq)) refuse('ErrMarks')
}

function refused({ Upto, Held, IDs }) {
  if (IDs.length === 0 || IDs.length > MaxRefused) refuse('ErrCount')
  if (Held < 1 || BigInt(Held) > BigInt(Upto) || BigInt(Upto) > MaxSeq) refuse('ErrSeq')
}

function wanted({ From, To }) {
  if (From < 1 || BigInt(From) > BigInt(To) || BigInt(To) > MaxSeq) refuse('ErrSeq')
}

function whereabouts({ Transport, Secret, Addrs, Offers, Proof }) {
  if ([Transport, Secret, Proof].some(b => b !== undefined && /^0*$/.test(b)) || Offers === 0) refuse('ErrMalformed')
  if (Addrs && (Addrs.length === 0 || Addrs.length > MaxPlaces || Addrs.includes(''))) refuse('ErrCount')
  if (Addrs?.some(a => a.length / 2 > MaxPlace)) refuse('ErrTooLong')
  if ((Transport === undefined) !== (Proof === undefined) || Addrs && !Transport) refuse('ErrMalformed')
}
const reach = body([[1, 'Transport', id, 'spelled'], [2, 'Secret', id, 'spelled'], [3, 'Addrs', list(bstr()), 'spelled'], [4, 'Offers', u64, 'spelled'],
  [5, 'Proof', bstr(64), 'spelled']], whereabouts)

// proved: the transport key has signed the id of the device.
const proved = (b, { Device }) => under({}, 'ErrProof', () => {
  const { Transport, Proof } = reach.parse(b)
  if (Transport === undefined) refuse('ErrProof')
  edKey(unhex(Transport))
  verify(unhex(Transport), 'kinloom/reach/1', unhex(Device), unhex(Proof))
  return { Transport }
})

const pairID = (a, b) => sha256(ascii('kinloom/pair/1'), ...(Buffer.compare(a, b) < 0 ? [a, b] : [b, a]))
const conversation = b => ({ Conversation: hex(b) })

function foreignID(_, { Network, Account, Chat }) {
  const parts = [Network, Account, Chat].flatMap(s => [u32(length(s)), Buffer.from(s)])
  return conversation(sha256(ascii('kinloom/foreign/1'), ...parts))
}

const idOf = (b, w) => ({ ID: hex(sha256(ascii('kinloom/event/1'), unhex(w.Conversation), unhex(w.Author), unhex(w.Device), b)) })

// clock: the milliseconds of a time fit the clock up to its maximum, and stay there.
function clock(_, { Clock, Now, Remote }) {
  const own = BigInt(Clock), now = BigInt(Now) < 0n ? 0n : BigInt(Now), most = MaxClock >> 16n
  const min = (a, b) => a < b ? a : b
  const max = (a, b) => a > b ? a : b
  if (Remote === undefined) return { Next: number(min(MaxClock, max(own + 1n, min(now, most) << 16n))) }
  const remote = BigInt(Remote)
  const wrong = remote >> 16n > now + MaxAhead
  return { Clock: number(wrong ? own : max(own, remote)), ...(wrong && { Wrong: true }) }
}

const derived = parse => ({ parse, derived: true })

export const messages = {
  Event: { parse: parseEvent, append: appendEvent },
  Text: body([[1, 'Text', tstr], [2, 'ReplyTo', id, 'optional']], text),
  Revision: body([[1, 'Target', id], [2, 'Text', tstr]], text),
  Emotion: body([[1, 'Target', id], [2, 'Emoji', tstr]], atMost('Emoji', MaxReaction)),
  Retraction: body([[1, 'Target', id]]),
  Name: body([[1, 'Name', tstr]], atMost('Name', MaxName)),
  Entries: body([[1, 'Entries', list(bstr())], [2, 'Records', list(bstr()), 'spelled']], entries),
  Marks: body([[1, 'Marks', list(struct([[1, 'Device', id], [2, 'Seq', u64]]))]], marks),
  Refused: body([[1, 'Device', id], [2, 'Upto', u64], [3, 'Held', u64], [4, 'IDs', list(id)]], refused),
  Wanted: body([[1, 'Device', id], [2, 'From', u64], [3, 'To', u64]], wanted),
  Whereabouts: reach,
  Proved: derived(proved),
  Composing: body([[1, 'Seconds', u64]], v => v.Seconds > MaxTyping ? refuse('ErrSeconds') : undefined),
  PairID: derived(b => conversation(pairID(b.subarray(0, 32), b.subarray(32)))),
  SelfID: derived(b => conversation(pairID(b, b))),
  ForeignID: derived(foreignID),
  IDOf: derived(idOf),
  Clock: derived(clock),
  Order: derived((_, { Nodes }) => ({ Order: order(Nodes) })),
}
