package event

import (
	"bytes"
	"cmp"
	"container/heap"
	"slices"

	"github.com/kinloom/kinloom/identity"
)

// Node is what the order of a conversation looks at in an event.
type Node struct {
	ID      ID
	Device  identity.DeviceID
	Seq     uint64
	Clock   Clock
	Parents []ID
}

// Order returns the indexes of nodes in the order in which a conversation is
// shown. The order is a function of the set of nodes, whatever their sequence:
//
//   - the events of one device stand by seq, without exception;
//   - an event stands behind those of its parents that are among the nodes;
//     missing ones hold nothing up;
//   - where that leaves a choice, by clock, then by id.
//
// Parents of honest devices cannot contradict the seqs. Where those of others
// do, devices wait for each other in a ring; of the events that form the ring
// the first by clock and id goes ahead of its parents, and nothing outside the
// ring is moved. It takes n log n steps for n honest events.
func Order(nodes []Node) []int {
	o := newOrdering(nodes)
	out := make([]int, 0, len(nodes))
	for len(out) < len(nodes) {
		var q int
		if o.ready.Len() > 0 {
			q = heap.Pop(&o.ready).(int)
		} else {
			q = o.breakRing()
		}
		out = append(out, o.place(q))
	}
	return out
}

// ordering is a merge of one queue a device. At any time only the head of a
// queue may be placed.
type ordering struct {
	nodes  []Node
	index  map[ID]int
	queues [][]int
	queue  []int  // of each node, its queue
	placed []bool // of each node
	// waits lists, for a node that heads of queues wait for, these heads.
	waits map[int][]int
	// open counts the parents that the head of each queue waits for.
	open  []int
	ready readyHeap
}

func newOrdering(nodes []Node) *ordering {
	o := &ordering{
		nodes:  nodes,
		index:  make(map[ID]int, len(nodes)),
		queue:  make([]int, len(nodes)),
		placed: make([]bool, len(nodes)),
		waits:  map[int][]int{},
	}
	sorted := make([]int, len(nodes))
	for i := range nodes {
		sorted[i] = i
	}
	slices.SortFunc(sorted, func(a, b int) int {
		x, y := &nodes[a], &nodes[b]
		return cmp.Or(bytes.Compare(x.Device[:], y.Device[:]), cmp.Compare(x.Seq, y.Seq), o.compare(a, b))
	})
	for i, n := range sorted {
		if i == 0 || nodes[sorted[i-1]].Device != nodes[n].Device {
			o.queues = append(o.queues, nil)
		}
		q := len(o.queues) - 1
		o.queues[q] = append(o.queues[q], n)
		o.queue[n] = q
		o.index[nodes[n].ID] = n
	}
	o.open = make([]int, len(o.queues))
	o.ready.o = o
	for q := range o.queues {
		o.advance(q)
	}
	return o
}

// compare is the order where nothing else decides: clock, then id.
func (o *ordering) compare(a, b int) int {
	x, y := &o.nodes[a], &o.nodes[b]
	return cmp.Or(cmp.Compare(x.Clock, y.Clock), bytes.Compare(x.ID[:], y.ID[:]))
}

// advance looks at the new head of a queue: either it is ready, or it waits.
func (o *ordering) advance(q int) {
	o.open[q] = 0
	if len(o.queues[q]) == 0 {
		return
	}
	head := o.queues[q][0]
	for _, p := range o.nodes[head].Parents {
		if i, ok := o.index[p]; ok && !o.placed[i] && i != head {
			o.open[q]++
			o.waits[i] = append(o.waits[i], head)
		}
	}
	if o.open[q] == 0 {
		heap.Push(&o.ready, q)
	}
}

// place puts the head of a queue next and wakes who waited for it.
func (o *ordering) place(q int) int {
	n := o.queues[q][0]
	o.queues[q] = o.queues[q][1:]
	o.placed[n] = true
	waiting := o.waits[n]
	delete(o.waits, n)
	for _, w := range waiting {
		if o.placed[w] { // it went ahead in a ring
			continue
		}
		q := o.queue[w]
		if o.open[q]--; o.open[q] == 0 {
			heap.Push(&o.ready, q)
		}
	}
	o.advance(q)
	return n
}

// breakRing returns the queue whose head goes ahead although it waits. Every
// head waits here, so a walk from head to a head that it waits for ends in a
// ring.
func (o *ordering) breakRing() int {
	q := -1
	for i := range o.queues {
		if len(o.queues[i]) > 0 && (q < 0 || o.compare(o.queues[i][0], o.queues[q][0]) < 0) {
			q = i
		}
	}
	seen := make(map[int]bool)
	for !seen[q] {
		seen[q] = true
		q = o.blocker(q)
	}
	first := q
	for i := o.blocker(q); i != q; i = o.blocker(i) {
		if o.compare(o.queues[i][0], o.queues[first][0]) < 0 {
			first = i
		}
	}
	return first
}

// blocker returns the queue of the first parent that the head of q waits for.
func (o *ordering) blocker(q int) int {
	head := o.queues[q][0]
	for _, p := range o.nodes[head].Parents {
		if i, ok := o.index[p]; ok && !o.placed[i] && i != head {
			return o.queue[i]
		}
	}
	panic("bug: a head waits for nothing")
}

// readyHeap holds the queues whose heads wait for nothing, the first by compare
// on top.
type readyHeap struct {
	o      *ordering
	queues []int
}

func (h *readyHeap) Len() int { return len(h.queues) }

func (h *readyHeap) Less(i, j int) bool {
	return h.o.compare(h.o.queues[h.queues[i]][0], h.o.queues[h.queues[j]][0]) < 0
}

func (h *readyHeap) Swap(i, j int) { h.queues[i], h.queues[j] = h.queues[j], h.queues[i] }

func (h *readyHeap) Push(x any) { h.queues = append(h.queues, x.(int)) }

func (h *readyHeap) Pop() any {
	last := len(h.queues) - 1
	q := h.queues[last]
	h.queues = h.queues[:last]
	return q
}
