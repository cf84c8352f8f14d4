// protocol/serverlist/SPEC.md: lists of servers, as files.

import { ascii, refuse, Refused, unhex } from './bytes.mjs'
import { edKey, verify } from './keys.mjs'

const MaxList = 49152, MaxServers = 128, MaxSigners = 16, MaxName = 64, MaxAddress = 256, MaxLife = 366 * 86400, Ahead = 26 * 3600

function text(s) {
  if (Buffer.byteLength(s) > MaxName || !/^[\p{L}\p{M}\p{N}\p{P}\p{S} ]+$/u.test(s) || s !== s.trim()) refuse('ErrName')
  return s
}

function time(s) {
  const ms = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/.test(s) ? Date.parse(s) : NaN
  if (Number.isNaN(ms) || new Date(ms).toISOString() !== s.replace('Z', '.000Z') || ms < 0) refuse('ErrTime')
  return ms / 1000
}

function server(s) {
  const [, Address, name] = /^([^ ]*)(?: (.*))?$/s.exec(s)
  const id = '12D3KooW[1-9A-HJ-NP-Za-km-z]{44}'
  if (Address.length > MaxAddress || !new RegExp(`^/[!-~]+/p2p/${id}$`).test(Address) || Address.split('/p2p/').length !== 2) refuse('ErrServer')
  return name === undefined ? { Address } : { Address, Name: text(name) }
}

function signature(s) {
  const [, Key, Signature] = /^([0-9a-f]{64}) ([0-9a-f]{128})$/.exec(s) ?? refuse('ErrSignature')
  return { Key, Signature }
}

function parse(b) {
  if (b.length === 0 || b.length > MaxList) refuse('ErrSize')
  // What is not UTF-8 becomes a character that no text has: of class So, so it is looked for here.
  const all = b.toString('utf8').replaceAll('\ufffd', '\u0000').split('\n')
  const whole = all.pop() === '' // every line has its end
  let at = 0
  const rest = word => all[at]?.startsWith(word) ? all[at++].slice(word.length) : undefined
  if (all[0] !== 'kinloom server list 1') refuse(/^kinloom server list \d+$/.test(all[0] ?? '') ? 'ErrVersion' : 'ErrList')
  at++
  const must = word => rest(word) ?? refuse('ErrList')
  const l = { Name: text(must('name ')), Issued: time(must('issued ')), Expires: time(must('expires ')), Servers: [], Signatures: [] }
  if (l.Expires <= l.Issued || l.Expires - l.Issued > MaxLife) refuse('ErrTime')
  for (let s; (s = rest('server ')) !== undefined;) {
    const one = server(s)
    if (l.Servers.length === MaxServers || l.Servers.some(o => o.Address === one.Address)) refuse('ErrServer')
    l.Servers.push(one)
  }
  if (l.Servers.length === 0) refuse('ErrList')
  const body = at
  for (let s; (s = rest('signature ')) !== undefined;) {
    const one = signature(s)
    if (l.Signatures.length === MaxSigners || l.Signatures.some(o => o.Key === one.Key)) refuse('ErrSignature')
    l.Signatures.push(one)
  }
  if (all[at] !== 'end' || at !== all.length - 1 || !whole) refuse('ErrList')
  return [l, Buffer.from(all.slice(0, body).join('\n') + '\n')]
}

const stamp = s => new Date(s * 1000).toISOString().replace('.000Z', 'Z')

function append(l) {
  const lines = ['kinloom server list 1', `name ${l.Name}`, `issued ${stamp(l.Issued)}`, `expires ${stamp(l.Expires)}`]
  lines.push(...l.Servers.map(s => ['server', s.Address, ...(s.Name ? [s.Name] : [])].join(' ')))
  lines.push(...(l.Signatures ?? []).map(s => `signature ${s.Key} ${s.Signature}`), 'end', '')
  return Buffer.from(lines.join('\n'))
}

function fits(body, s) {
  try {
    edKey(unhex(s.Key))
    verify(unhex(s.Key), ascii('kinloom/server-list/1'), body, unhex(s.Signature))
    return true
  } catch (e) {
    if (!(e instanceof Refused)) throw e
    return false
  }
}

function check(b, { Now, Believed, Need }) {
  const [l, body] = parse(b)
  const believed = l.Signatures.filter(s => (Believed ?? []).includes(s.Key))
  if (believed.filter(s => fits(body, s)).length < Math.max(Need, 1)) refuse(believed.length < Math.max(Need, 1) ? 'ErrSigners' : 'ErrForged')
  if (Now >= l.Expires) refuse('ErrExpired')
  if (Now + Ahead < l.Issued) refuse('ErrNotYet')
  return l
}

export const messages = {
  List: { parse: b => parse(b)[0], append },
  Verify: { parse: check, append },
}
