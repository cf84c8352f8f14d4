package main

import "testing"

func TestCount(t *testing.T) {
	for _, test := range []struct {
		name  string
		heard []int
		want  tally
	}{
		{"all", []int{0, 1, 2, 3}, tally{}},
		{"nothing", nil, tally{lost: 4}},
		{"a hole", []int{0, 1, 3}, tally{lost: 1}},
		{"one doubled", []int{0, 1, 1, 2, 3}, tally{twice: 1}},
		{"doubled later", []int{0, 1, 2, 3, 1}, tally{twice: 1}},
		{"swapped", []int{0, 2, 1, 3}, tally{disorder: 1}},
		{"all wrong", []int{3, 3, 0}, tally{lost: 2, twice: 1, disorder: 1}},
	} {
		var heard []string
		for _, i := range test.heard {
			heard = append(heard, text("ada", i))
		}
		if got := count(heard, "ada", 4); got != test.want {
			t.Errorf("%s: got %s, want %s", test.name, got, test.want)
		}
	}
}
