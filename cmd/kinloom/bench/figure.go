package bench

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// Figure is one measured number. Raw is the same for the parts alone, Ratio is
// Value by Raw; both are nil where there is nothing to compare with. Bar holds
// for the ratio, or for the value if there is none. OK is nil where there is no
// verdict: the machine was too busy, the run too short, or it cannot be measured
// here.
type Figure struct {
	Figure string   `json:"figure"`
	Value  float64  `json:"value"`
	Unit   string   `json:"unit"`
	Raw    *float64 `json:"raw"`
	Ratio  *float64 `json:"ratio"`
	Bar    float64  `json:"bar"`
	OK     *bool    `json:"ok"`
	// Load is the share of the machine's processors that other programs used
	// while this was measured, from 0 to 1; nil if the system does not tell.
	Load *float64 `json:"load"`
	Note string   `json:"note,omitempty"`

	atLeast bool // the bar is the least, not the most
}

// bar says what a figure has to reach.
type bar struct {
	name    string
	unit    string
	bar     float64
	atLeast bool
}

// bars are the figures in the order in which they are measured.
var bars = []bar{
	{name: "load", unit: "share", bar: MaxLoad},
	{name: "one-at-a-time", unit: "us", bar: 1.25},
	{name: "window-64", unit: "messages/s", bar: 0.6, atLeast: true},
	{name: "window-256", unit: "messages/s", bar: 0.7, atLeast: true},
	{name: "cpu", unit: "us", bar: 3},
	{name: "disk", unit: "B", bar: 1700},
	{name: "stream-one", unit: "B", bar: 1.6},
	{name: "stream-batch", unit: "B", bar: 1.2},
	{name: "start", unit: "ms", bar: 100},
	{name: "memory-idle", unit: "MB", bar: 1.3},
	{name: "memory-after", unit: "MB", bar: 3},
	{name: "search-word", unit: "ms", bar: 1.5},
	{name: "search-word-p95", unit: "ms", bar: 5},
	{name: "search-two-words", unit: "ms", bar: 1.5},
	{name: "search-two-words-p95", unit: "ms", bar: 5},
	{name: "search-word-person", unit: "ms", bar: 1.5},
	{name: "search-word-person-p95", unit: "ms", bar: 5},
	{name: "open-conversation", unit: "ms", bar: 0.3},
	{name: "binary", unit: "MB", bar: 40},
}

// Names gives the names of all figures, in the order in which they are measured.
func Names() []string {
	names := make([]string, len(bars))
	for i, b := range bars {
		names[i] = b.name
	}
	return names
}

// selects reports whether a figure is wanted: by its name, by what its name
// begins with, or because nothing was asked for.
func selects(wanted, name string) bool {
	return wanted == "" || name == wanted || strings.HasPrefix(name, wanted+"-")
}

// Known reports whether wanted selects anything.
func Known(wanted string) bool {
	return slices.ContainsFunc(bars, func(b bar) bool { return selects(wanted, b.name) })
}

// figure makes the figure of a name; raw is 0 where there is none.
func figure(name string, value, raw float64) Figure {
	i := slices.IndexFunc(bars, func(b bar) bool { return b.name == name })
	if i < 0 {
		panic("bug: no figure " + name)
	}
	b := bars[i]
	f := Figure{Figure: name, Value: round(value), Unit: b.unit, Bar: b.bar, atLeast: b.atLeast}
	if raw > 0 {
		f.Raw, f.Ratio = new(round(raw)), new(round(value/raw))
	}
	return f
}

// holds reports whether the figure reaches its bar.
func (f *Figure) holds() bool {
	v := f.Value
	if f.Ratio != nil {
		v = *f.Ratio
	}
	if f.atLeast {
		return v >= f.Bar
	}
	return v <= f.Bar
}

// judge sets the verdict. short is why there is none whatever the load, or empty.
func (f *Figure) judge(load float64, known bool, short string) {
	if known {
		f.Load = new(math.Round(load*1000) / 1000)
	}
	switch {
	case f.Note != "": // what was measured says why not
	case short != "":
		f.Note = short
	case !known:
		f.Note = "this system does not tell how busy it is: no verdict"
	case load > MaxLoad:
		f.Note = fmt.Sprintf("other programs used %.0f %% of the machine, more than %.0f %%: no verdict", 100*load, 100*MaxLoad)
	default:
		f.OK = new(f.holds())
	}
}

// round keeps four digits: more would claim what nobody measured.
func round(v float64) float64 {
	if v == 0 || math.IsNaN(v) || math.IsInf(v, 0) {
		return 0
	}
	unit := math.Pow(10, 3-math.Floor(math.Log10(math.Abs(v))))
	if unit > 1 {
		return math.Round(v*unit) / unit
	}
	return math.Round(v)
}

// median is the middle value, 0 of none.
func median(all []float64) float64 {
	if len(all) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(all))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// percentile gives the value that a share of all does not exceed, 0 of none.
func percentile(all []float64, share float64) float64 {
	if len(all) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(all))
	return sorted[min(int(share*float64(len(sorted))), len(sorted)-1)]
}
