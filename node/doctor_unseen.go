package node

import "slices"

// beginWith is what to do about a check that another one keeps from being made.
func beginWith(line string) string { return "Begin with the line on " + line + ", then ask again." }

// unseen adds a line for each check that is not among the findings. The socket is not
// looked at by the node that made it, and of a home in memory there are no files.
func (c *Checkup) unseen(found []Finding, add adder) {
	for _, check := range Checks {
		switch {
		case slices.ContainsFunc(found, func(f Finding) bool { return f.Check == check }), check == "socket":
		case c.Home == nil && slices.Contains([]string{"home", "keys", "disk", "crash"}, check):
		case check == "network", check == "disk" && !c.Home.gone():
			add(check, Warn, "Look there yourself.", notSeen, "the system does not tell")
		default:
			why, fix := c.hiddenBy()
			add(check, Warn, fix, notSeen, why)
		}
	}
}

// hiddenBy says why nothing was to be seen of the inside of the home, or of a running
// node, and what to do first.
func (c *Checkup) hiddenBy() (why, fix string) {
	h := c.Home
	switch {
	case h.gone():
		return "there is no home", beginWith("home")
	case c.Holder.Held && !c.Holder.Answers && c.Socket != nil && (c.Socket.Denied || c.Socket.broken()):
		return "the node that has this home open could not be asked", beginWith("socket")
	case c.Holder.Held && !c.Holder.Answers:
		return "the process that has this home open does not answer", beginWith("node")
	case c.Account != nil:
		return "no node is running", "Start it and ask again: kinloom up."
	case h != nil && h.Key.broken():
		return "the home could not be opened", beginWith("keys")
	case h != nil && h.keepsShut():
		return "the home could not be opened", beginWith("home")
	case c.Store != nil && c.Store.Full:
		return "the disk is full", beginWith("disk")
	}
	return "the databases could not be opened", beginWith("store")
}

// gone reports whether there is no home.
func (h *HomeFacts) gone() bool { return h != nil && (h.Missing || h.NotFolder) }
