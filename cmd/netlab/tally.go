package main

import "fmt"

// tally is what can be wrong with a row of numbered messages.
type tally struct{ lost, twice, disorder int }

// text is what a sender says as number i.
func text(sender string, i int) string { return fmt.Sprintf("%s says %05d", sender, i) }

// count compares what was heard, in the order that it is shown, with numbers 0 to n-1 of one sender.
func count(heard []string, sender string, n int) tally {
	times := make(map[string]int)
	var t tally
	last := ""
	for _, said := range heard {
		if times[said]++; times[said] > 1 {
			t.twice++
			continue
		}
		if said < last { // numbers have one width
			t.disorder++
		}
		last = max(last, said)
	}
	for i := range n {
		if times[text(sender, i)] == 0 {
			t.lost++
		}
	}
	return t
}

func (t tally) add(o tally) tally {
	return tally{t.lost + o.lost, t.twice + o.twice, t.disorder + o.disorder}
}

func (t tally) String() string {
	return fmt.Sprintf("%d lost, %d twice, %d out of order", t.lost, t.twice, t.disorder)
}
