// The second implementation: reads every vector of the protocol and runs it, without any of our Go code. See README.md.
//
//   node main.mjs           every vector; exits 1 with a list of what differs
//   node main.mjs --bites   changes one byte of each vector and fails if that goes unnoticed

import fs from 'node:fs'
import { isDeepStrictEqual } from 'node:util'
import { hex, lean, Refused } from './bytes.mjs'
import * as contact from './contact.mjs'
import * as dm from './dm.mjs'
import * as event from './event.mjs'
import * as identity from './identity.mjs'
import * as keyfile from './keyfile.mjs'
import * as rv from './rv.mjs'
import * as serverlist from './serverlist.mjs'
import { wholes } from './session-whole.mjs'
import * as session from './session.mjs'
import * as wire from './wire.mjs'

const root = new URL('../../', import.meta.url)
const folders = {
  'identity': identity, 'identity/keyfile': keyfile, 'protocol/wire': wire, 'protocol/event': event, 'protocol/contact': contact, 'protocol/dm': dm,
  'protocol/rv': rv, 'protocol/serverlist': serverlist, 'protocol/session': { ...session, wholes },
}
const readJSON = path => JSON.parse(fs.readFileSync(new URL(path, root)))

// outcome is the value of a vector, or the name of what refused it.
function outcome(f) {
  try {
    return f()
  } catch (e) {
    if (!(e instanceof Refused)) throw e
    return e.refusal
  }
}

const short = v => { const s = JSON.stringify(v); return s.length > 200 ? s.slice(0, 200) + '…' : s }
const plain = v => typeof v === 'object' && !Array.isArray(v) ? lean(v) : v
const tidy = (folder, v) => folder.startsWith('identity') ? v : plain(v)

// check runs one vector and returns what is wrong with it.
function check(folder, message, v) {
  const b = Buffer.from(v.hex, 'hex')
  const got = tidy(folder, outcome(() => message.parse(b, v.with)))
  if (!isDeepStrictEqual(got, v.expect)) return [`gives ${short(got)}, want ${short(v.expect)}`]
  const refusing = typeof v.expect === 'string' && v.expect.startsWith('Err')
  if (refusing || message.derived) return []
  const wrong = []
  if (message.append && !v.name.includes('unknown')) {
    const again = hex(message.append(v.expect, b, v.with))
    if (again !== v.hex) wrong.push(`is written as ${short(again)}`)
  }
  // What was cut is refused: every prefix of a short input, 256 of a long one.
  if (message.growing) return wrong
  for (let n = 0; n < b.length; n += Math.max(1, Math.floor(b.length / 256))) {
    const cut = outcome(() => message.parse(b.subarray(0, n), v.with))
    if (typeof cut === 'object' ? !cut.ends : !cut.startsWith('Err')) wrong.push(`its first ${n} bytes pass`)
  }
  return wrong
}

function run(bites) {
  const wrong = []
  for (const [folder, { messages, wholes = {} }] of Object.entries(folders)) {
    const count = { accepting: 0, refusing: 0, derived: 0, changed: 0 }
    const dir = folder + '/testdata/vectors/'
    for (const file of fs.readdirSync(new URL(dir, root)).filter(f => f.endsWith('.json'))) {
      for (const v of readJSON(dir + file)) {
        const message = messages[v.message]
        const where = `${dir}${file}: ${v.message} "${v.name}"`
        if (!message) {
          wrong.push(`${where}: this program does not know ${v.message}`)
          continue
        }
        const refusing = typeof v.expect === 'string' && v.expect.startsWith('Err')
        count[message.derived && !refusing ? 'derived' : refusing ? 'refusing' : 'accepting']++
        if (!bites) wrong.push(...check(folder, message, v).map(w => `${where}: ${w}`))
        else if (!refusing) wrong.push(...bite(folder, message, v, count).map(w => `${where}: ${w}`))
      }
    }
    for (const [file, whole] of Object.entries(wholes)) {
      if (bites) wrong.push(...biteWhole(whole, file, count))
      else {
        const result = outcome(() => whole(readJSON(file)))
        const [n, bad] = Array.isArray(result) ? result : [0, [`ends with ${result}`]]
        count['in ' + file.replace(/.*[/]/, '')] = n
        wrong.push(...bad.map(w => `${file}: ${w}`))
      }
    }
    const shown = Object.entries(count).filter(([, n]) => n > 0).map(([name, n]) => `${n} ${name}`)
    console.log(`${folder}: ${shown.join(', ')}`)
  }
  return wrong
}

// alter gives another value of the same form, changed in its last part.
function alter(v) {
  if (v === undefined) return 1
  if (typeof v === 'string') return v.slice(0, -1) + (v.endsWith('1') ? '2' : '1')
  if (typeof v === 'number') return v + 1
  if (typeof v === 'boolean') return !v
  if (Array.isArray(v)) return [...v.slice(0, -1), alter(v.at(-1))]
  const last = Object.keys(v).at(-1)
  return { ...v, [last]: last === undefined ? 1 : alter(v[last]) }
}

// bite changes one byte of the input, and one part of the value, of an accepting vector. What an unknown key says may
// change unseen.
function bite(folder, message, v, count) {
  const unseen = []
  const noticed = changed => {
    count.changed++
    return check(folder, message, { ...v, ...changed }).length > 0
  }
  if (!noticed({ expect: alter(v.expect) })) unseen.push('a changed value goes unnoticed')
  // Sizes and blanks are taken together, and what stands behind the end of a log is not read.
  if (v.hex === '' || v.name.includes('unknown') || message.rounds || v.expect.ends) return unseen
  for (const at of new Set([0, v.hex.length / 4, v.hex.length / 2 - 1].map(Math.floor))) {
    const b = Buffer.from(v.hex, 'hex')
    b[at] ^= 1
    if (!noticed({ hex: hex(b) })) unseen.push(`byte ${at} may change unnoticed`)
  }
  return unseen
}

// biteWhole changes each text of a file that is worked through as a whole. The state of an Olm session has more in it
// than one message needs.
function biteWhole(whole, file, count) {
  const unseen = []
  const texts = v => typeof v === 'object' ? Object.keys(v).flatMap(k => texts(v[k]).map(p => [k, ...p])) : typeof v === 'string' ? [[]] : []
  for (const path of texts(readJSON(file)).filter(p => p[0] !== 'Note' && !p.includes('Olm'))) {
    const w = readJSON(file)
    const at = path.slice(0, -1).reduce((o, k) => o[k], w), last = path.at(-1)
    at[last] = alter(at[last])
    count.changed++
    const result = outcome(() => whole(w))
    if (Array.isArray(result) && result[1].length === 0) unseen.push(`${file}: ${path.join('.')} may change unnoticed`)
  }
  return unseen
}

const wrong = run(process.argv.includes('--bites'))
if (wrong.length > 0) {
  console.error(wrong.join('\n') + `\n${wrong.length} differences`)
  process.exitCode = 1
}
