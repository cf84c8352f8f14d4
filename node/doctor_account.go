package node

import (
	"fmt"
	"strings"
	"time"
)

// AccountFacts are what the account itself shows.
type AccountFacts struct {
	Now     time.Time
	Expires time.Time // this device's certificate
	Renews  bool      // the key that renews it is here
	Expired []string  // whose devices' certificates have ended
	Copies  []string  // what was found of copies of this device, or of others
	Waiting []WaitingFacts
}

// WaitingFacts are what waits for one person's devices.
type WaitingFacts struct {
	Name   string
	Count  int
	More   bool // than Count, in the table
	Since  time.Time
	Reason string
	Next   string
}

func (a *AccountFacts) check(add adder) {
	left := a.Expires.Sub(a.Now)
	day := a.Expires.UTC().Format(time.DateOnly)
	switch {
	case a.Expires.IsZero():
	case left <= 0 && a.Renews:
		add("certificate", Warn, "It is renewed at the next start with a network: kinloom up.", "this device's certificate ended on %s", day)
	case left <= 0:
		add("certificate", Fail, "Start the node with the key file that has the renewing key.", "this device's certificate ended on %s, and the key that renews it is not here", day)
	case left < 30*24*time.Hour && !a.Renews:
		add("certificate", Warn, "Start the node with the key file that has the renewing key.", "this device's certificate ends on %s, and the key that renews it is not here", day)
	case len(a.Expired) > 0:
		add("certificate", Warn, "Messages go on by themselves once their devices have been online and renewed them.", "the certificates of devices of %s have ended", some(a.Expired))
	default:
		add("certificate", OK, "", "this device's certificate lasts until %s and is renewed by itself", day)
	}
	if len(a.Copies) > 0 {
		add("copy", Warn, "If two nodes run with one key file, stop one of them for good.", "%s", strings.Join(a.Copies, " "))
	} else {
		add("copy", OK, "", "no second node with this device's keys was noticed")
	}
	if len(a.Waiting) == 0 {
		add("messages", OK, "", "nothing waits")
		return
	}
	total, more := 0, ""
	var parts []string
	for _, w := range a.Waiting {
		total += w.Count
		if w.More {
			more = "more than "
		}
		parts = append(parts, fmt.Sprintf("%d for %s (%s)", w.Count, w.Name, w.Reason))
	}
	add("messages", Warn, a.Waiting[0].Next, "%s%d wait: %s", more, total, some(parts))
}
