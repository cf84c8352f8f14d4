// Our use of Olm against libolm (in WASM), live: prekey and normal messages, started by either side, with messages
// lost, late, twice and changed, and with pickles going over in both directions. Our side is a test binary of
// protocol/session that takes commands; see libolm_test.go there.
//
//   node libolm.mjs            live
//   node libolm.mjs --record   live, and written to protocol/session/testdata/libolm.json

import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import readline from 'node:readline'
import { fileURLToPath } from 'node:url'
import Olm from '@matrix-org/olm'
import { ascii, hex, sha256, unhex } from './bytes.mjs'
import { xPublic } from './keys.mjs'
import { base64, lock, parseNormal, parsePrekey, prekey, unlock } from './olm.mjs'

const folder = fileURLToPath(new URL('../../protocol/session/', import.meta.url))
const Password = 'pickle', Turns = 8
const seed = name => sha256(ascii(`libolm ${name}`))
const raw = text => Buffer.from(text, 'base64')

// inner is the normal message in a message of libolm. Our side never sends the other type, so the mark in its state that
// ends it stays unset, and libolm with that state puts the keys of the start in front.
const inner = (type, body) => type === 0 ? parsePrekey(raw(body)).message : raw(body)

// Peer is our side: one session in another process.
class Peer {
  constructor(binary) {
    this.lines = []
    this.process = spawn(binary, ['-test.run=^TestLibolm$'], {
      cwd: folder, env: { ...process.env, KINLOOM_LIBOLM: 'live' }, stdio: ['pipe', 'pipe', 'inherit'],
    })
    this.answers = readline.createInterface({ input: this.process.stdout })[Symbol.asyncIterator]()
  }

  async ask(...words) {
    const Do = words.map(w => Buffer.isBuffer(w) ? hex(w) : String(w)).join(' ')
    this.process.stdin.write(Do + '\n')
    const { value: Gives = 'the peer ended' } = await this.answers.next()
    this.lines.push({ Do, Gives })
    return Gives
  }

  async bytes(...words) {
    const answer = await this.ask(...words)
    assert.match(answer, /^ok /, `${words[0]}: ${answer}`)
    return unhex(answer.slice(3))
  }

  async refuses(...words) {
    assert.equal(await this.ask(...words), 'refused', `${words[0]} had to be refused`)
  }

  async end() {
    this.process.stdin.end()
    while (!(await this.answers.next()).done);
  }
}

const counts = { prekey: 0, normal: 0, refused: 0, pickles: 0 }

// Talk holds both ends of one session: ours in the peer, theirs in libolm.
class Talk {
  constructor(peer, theirs) {
    Object.assign(this, { peer, theirs, said: 0, seq: 0 })
  }

  text() { return `${++this.said}: ${'kín loom 🧵 '.repeat(this.said % 5)}` }

  // write has libolm encrypt; the inner message is what our side gets.
  write() {
    const text = this.text(), { type, body } = this.theirs.encrypt(text)
    counts[type === 0 ? 'prekey' : 'normal']++
    return { text, seq: ++this.seq, message: inner(type, body), body: raw(body) }
  }

  async toUs({ text, seq, message }) {
    const changed = Buffer.from(message)
    changed[message.length >> 1] ^= 1
    await this.peer.refuses('open', seq, changed)
    assert.equal((await this.peer.bytes('open', seq, message)).toString(), text)
    await this.peer.refuses('open', seq, message)
    counts.refused += 2
  }

  async seal() {
    const text = this.text()
    return { text, message: await this.peer.bytes('seal', Buffer.from(text)) }
  }

  // toThem gives libolm a message of ours, as of type 0 where pre has the keys of the start.
  toThem({ text, message }, pre) {
    const type = pre ? 0 : 1
    const wrap = m => base64(pre ? prekey({ ...pre, message: m }) : m)
    const changed = Buffer.from(message)
    changed[message.length - 1] ^= 1
    assert.throws(() => this.theirs.decrypt(type, wrap(changed)), /OLM/)
    assert.equal(this.theirs.decrypt(type, wrap(message)), text)
    assert.throws(() => this.theirs.decrypt(type, wrap(message)), /OLM/)
    counts.refused += 2
    counts[pre ? 'prekey' : 'normal']++
  }

  // turns goes back and forth; in each turn messages of both sides are late by one turn and out of order.
  async turns(n) {
    let lateToUs = [], lateToThem = []
    for (let i = 0; i < n; i++) {
      const theirs = Array.from({ length: 2 + i % 4 }, () => this.write())
      for (const m of [theirs.at(-1), ...lateToUs]) await this.toUs(m)
      lateToUs = theirs.slice(0, -1)
      const ours = []
      for (let k = 0; k < 2 + (i + 1) % 4; k++) ours.push(await this.seal())
      for (const m of [ours.at(-1), ...lateToThem]) this.toThem(m)
      lateToThem = ours.slice(0, -1)
    }
    for (const m of lateToUs) await this.toUs(m)
    for (const m of lateToThem) this.toThem(m)
  }

  // same checks that the state of our side means the same in libolm, byte for byte, and says the same words.
  async same() {
    const ours = await this.peer.bytes('pickle')
    const copy = new Olm.Session()
    copy.unpickle(Password, lock(Password, ours))
    assert.equal(hex(unlock(Password, copy.pickle(Password))), hex(ours), 'our pickle in libolm')
    counts.pickles++
    return copy
  }

  // swap exchanges the ends: libolm goes on with our state, we with that of libolm.
  async swap() {
    const ours = await this.same()
    const theirs = unlock(Password, this.theirs.pickle(Password))
    await this.peer.bytes('unpickle', theirs)
    assert.equal(hex(await this.peer.bytes('pickle')), hex(theirs), 'the pickle of libolm here')
    counts.pickles++
    this.theirs.free()
    this.theirs = ours
    this.seq = 0
  }

  // chain checks that both write the same bytes from the same state.
  async chain() {
    const copy = await this.same()
    for (let i = 0; i < 3; i++) {
      const m = await this.seal()
      const { type, body } = copy.encrypt(m.text)
      assert.equal(hex(inner(type, body)), hex(m.message), 'a message from the same state')
      this.toThem(m)
    }
    copy.free()
  }
}

function account() {
  const a = new Olm.Account()
  a.create()
  a.generate_one_time_keys(1)
  return { a, identity: raw(JSON.parse(a.identity_keys()).curve25519), oneTime: raw(Object.values(JSON.parse(a.one_time_keys()).curve25519)[0]) }
}

// theyStart: libolm begins. Its first messages come out of order, each of them a prekey message.
async function theyStart(peer) {
  const identity = seed('our identity'), oneTime = seed('our one-time key'), them = account()
  const theirs = new Olm.Session()
  theirs.create_outbound(them.a, base64(xPublic(identity)), base64(xPublic(oneTime)))
  const talk = new Talk(peer, theirs)
  const first = [talk.write(), talk.write(), talk.write()]
  const start = parsePrekey(first[0].body)
  assert.equal(hex(start.identity), hex(them.identity))
  assert.equal(hex(start.oneTime), hex(xPublic(oneTime)))
  for (const m of first) assert.equal(hex(parsePrekey(m.body).base), hex(start.base))
  await peer.bytes('answer', identity, oneTime, start.identity, start.base, parseNormal(start.message).ratchet)
  for (const m of [first[2], first[0], first[1]]) await talk.toUs(m)
  return talk
}

// weStart: our side begins. libolm gets prekey messages that are built of the pieces that a capsule has.
async function weStart(peer) {
  const identity = seed('our other identity'), them = account()
  const keys = await peer.bytes('start', identity, them.identity, them.oneTime)
  const base = keys.subarray(0, 32), ratchet = keys.subarray(32)
  const pre = { oneTime: them.oneTime, base, identity: xPublic(identity) }
  const theirs = new Olm.Session(), talk = new Talk(peer, theirs)
  const first = [await talk.seal(), await talk.seal(), await talk.seal()]
  for (const m of first) assert.equal(hex(parseNormal(m.message).ratchet), hex(ratchet))
  const message = base64(prekey({ ...pre, message: first[1].message }))
  assert.throws(() => theirs.create_inbound_from(them.a, base64(xPublic(seed('a stranger'))), message), /OLM/)
  theirs.create_inbound_from(them.a, base64(pre.identity), message)
  assert.equal(theirs.session_id(), base64(sha256(pre.identity, base, them.oneTime)))
  for (const m of [first[1], first[0]]) talk.toThem(m, pre)
  talk.toThem(first[2])
  return talk
}

async function main() {
  await Olm.init()
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'kinloom-libolm-'))
  try {
    const binary = path.join(dir, 'peer')
    execFileSync('go', ['test', '-c', '-o', binary, '.'], { cwd: folder, stdio: 'inherit' })
    const peer = new Peer(binary)
    for (const begin of [theyStart, weStart]) {
      const talk = await begin(peer)
      await talk.turns(Turns)
      await talk.chain()
      await talk.swap()
      await talk.turns(Turns)
      await talk.chain()
    }
    await peer.end()
    console.log(`libolm: ${Object.entries(counts).map(([name, n]) => `${n} ${name}`).join(', ')}`)
    if (process.argv.includes('--record')) {
      const Note = 'Commands of libolm 3.2.15 to TestLibolm, and its answers. Recorded by .ci/crosscheck/libolm.mjs.'
      fs.writeFileSync(folder + 'testdata/libolm.json', JSON.stringify({ Note, Lines: peer.lines }, null, 1) + '\n')
    }
  } finally {
    fs.rmSync(dir, { recursive: true })
  }
}

await main()
