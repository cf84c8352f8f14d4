// protocol/event/SPEC.md 6, Order: the order in which a set of events is shown.

// order takes {ID, Device, Seq, Clock, Parents} and returns the ids.
export function order(nodes) {
  const number = n => BigInt(n ?? 0)
  const compare = (...pairs) => {
    for (const [a, b] of pairs) {
      if (a !== b) return a < b ? -1 : 1
    }
    return 0
  }
  const byRule1 = (a, b) => compare([number(a.Seq), number(b.Seq)], [number(a.Clock), number(b.Clock)], [a.ID, b.ID])
  const byRule3 = (a, b) => compare([number(a.Clock), number(b.Clock)], [a.ID, b.ID])
  const lowest = queues => queues.reduce((l, q) => byRule3(q[0], l[0]) < 0 ? q : l)

  const devices = new Map()
  for (const n of nodes) devices.set(n.Device, [...(devices.get(n.Device) ?? []), n])
  const queues = [...devices.values()].map(q => q.sort(byRule1))
  const waiting = id => queues.find(q => q.some(n => n.ID === id))
  // blocker is the queue that the first event of q waits for.
  const blocker = q => (q[0].Parents ?? []).filter(p => p !== q[0].ID).map(waiting).find(x => x !== undefined)

  const out = []
  while (out.length < nodes.length) {
    const open = queues.filter(q => q.length > 0)
    const ready = open.filter(q => blocker(q) === undefined)
    out.push(lowest(ready.length > 0 ? ready : ring(lowest(open), blocker)).shift().ID)
  }
  return out
}

// ring follows what each queue waits for, until a queue comes up again.
function ring(q, blocker) {
  const path = []
  while (!path.includes(q)) {
    path.push(q)
    q = blocker(q)
  }
  return path.slice(path.indexOf(q))
}
