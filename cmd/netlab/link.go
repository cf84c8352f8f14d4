package main

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"
)

// quality is what a link does to packets in one direction. Its zero value is a perfect link.
type quality struct {
	delay   time.Duration // of every packet
	jitter  time.Duration // up to so much more or less, evenly: packets overtake each other
	loss    float64       // share of packets that vanish, 0 to 1
	dup     float64       // share that arrives twice
	corrupt float64       // share with one bit flipped; every second one with its checksum mended
	rate    float64       // bytes a second, 0 for no limit; what waits longer than maxWait is dropped
	cut     bool          // nothing gets through
}

// maxWait is how much time of a limited link may be queued up before packets are dropped.
const maxWait = time.Second

// parseQuality changes q by words such as "delay=100ms", "jitter=30ms", "loss=10%", "dup=0.05", "corrupt=0.1%",
// "rate=2mbit" (or kbit, 0 for no limit), "cut=yes", "cut=no" and "clear", which comes back to a perfect link.
func parseQuality(q quality, words []string) (quality, error) {
	for _, word := range words {
		name, value, _ := strings.Cut(word, "=")
		var err error
		switch name {
		case "clear":
			q = quality{}
		case "delay":
			q.delay, err = parseSpan(value)
		case "jitter":
			q.jitter, err = parseSpan(value)
		case "loss":
			q.loss, err = parseShare(value)
		case "dup":
			q.dup, err = parseShare(value)
		case "corrupt":
			q.corrupt, err = parseShare(value)
		case "rate":
			q.rate, err = parseRate(value)
		case "cut":
			if value != "yes" && value != "no" {
				err = fmt.Errorf("%q is neither yes nor no", value)
			}
			q.cut = value == "yes"
		default:
			err = fmt.Errorf("there is delay, jitter, loss, dup, corrupt, rate, cut and clear")
		}
		if err != nil {
			return quality{}, fmt.Errorf("setting %q: %w", word, err)
		}
	}
	return q, nil
}

// String gives the words that parseQuality takes.
func (q quality) String() string {
	words := []string{"clear"}
	add := func(set bool, name, value string) {
		if set {
			words = append(words, name+"="+value)
		}
	}
	number := func(f float64) string { return strconv.FormatFloat(f, 'g', -1, 64) }
	add(q.delay != 0, "delay", q.delay.String())
	add(q.jitter != 0, "jitter", q.jitter.String())
	add(q.loss != 0, "loss", number(q.loss))
	add(q.dup != 0, "dup", number(q.dup))
	add(q.corrupt != 0, "corrupt", number(q.corrupt))
	add(q.rate != 0, "rate", number(q.rate*8)+"bit")
	add(q.cut, "cut", "yes")
	return strings.Join(words, " ")
}

// parseSpan reads a time of at most an hour.
func parseSpan(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err == nil && (d < 0 || d > time.Hour) {
		err = fmt.Errorf("%q is not within 0s and 1h", s)
	}
	return d, err
}

// parseShare reads a share: "0.1" or "10%".
func parseShare(s string) (float64, error) {
	number, percent := strings.CutSuffix(s, "%")
	f, err := strconv.ParseFloat(number, 64)
	if percent {
		f /= 100
	}
	if err == nil && !(f >= 0 && f <= 1) {
		err = fmt.Errorf("%q is not within 0 and 1, or 0%% and 100%%", s)
	}
	return f, err
}

// parseRate reads a rate in bits a second and gives it in bytes.
func parseRate(s string) (float64, error) {
	factor := 1.0
	number := strings.TrimSuffix(s, "bit")
	switch {
	case strings.HasSuffix(number, "k"):
		factor = 1e3
	case strings.HasSuffix(number, "m"):
		factor = 1e6
	}
	f, err := strconv.ParseFloat(strings.TrimRight(number, "km"), 64)
	if err == nil && !(f >= 0 && f*factor <= 1e12) {
		err = fmt.Errorf("%q is not within 0 and 1e12", s)
	}
	return f * factor / 8, err
}

// link is one direction between two ports. It is a pure machine: time is an argument, chance comes from its seed.
type link struct {
	quality
	dice *rand.Rand
	busy time.Time // until when the packets before take the link
	odd  bool      // the last damaged packet had its checksum mended
}

// newLink makes the link of a direction. The dice of each one are its own, so that what other links carry does not
// change what this one does.
func newLink(seed uint64, from, to string, q quality) *link {
	h := fnv.New64a()
	h.Write([]byte(from + ">" + to)) // never fails
	return &link{quality: q, dice: rand.New(rand.NewPCG(seed, h.Sum64()))}
}

// fate is one arrival of a packet.
type fate struct {
	due     time.Time
	damaged bool
	dice    uint64 // which bit
	mend    bool
}

// fates tells when a packet that came in now arrives: never, once, or twice. Each packet throws the same dice, whatever
// is set, so one setting does not change what another does.
func (l *link) fates(now time.Time, size int) []fate {
	lost := l.dice.Float64() < l.loss
	twice := l.dice.Float64() < l.dup
	damaged := l.dice.Float64() < l.corrupt
	bit := l.dice.Uint64()
	late := [2]float64{l.dice.Float64(), l.dice.Float64()}
	if l.cut || lost {
		return nil
	}
	if l.rate > 0 {
		if l.busy.Before(now) {
			l.busy = now
		}
		if l.busy.Sub(now) > maxWait {
			return nil
		}
		l.busy = l.busy.Add(time.Duration(float64(size) / l.rate * float64(time.Second)))
		now = l.busy
	}
	out := make([]fate, 1, 2)
	if twice {
		out = out[:2]
	}
	for i := range out {
		shift := time.Duration((2*late[i] - 1) * float64(l.jitter))
		out[i].due = now.Add(max(0, l.delay+shift))
	}
	if damaged {
		l.odd = !l.odd
		out[0].damaged, out[0].dice, out[0].mend = true, bit, l.odd
	}
	return out
}
