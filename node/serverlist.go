package node

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kinloom/kinloom/identity"
	"github.com/kinloom/kinloom/node/p2p"
	"github.com/kinloom/kinloom/node/store"
	"github.com/kinloom/kinloom/protocol/event"
	"github.com/kinloom/kinloom/protocol/serverlist"
)

// Names of settings.
const (
	settingSigner = "list-signer " // and a key in hex: the name that the owner gave it
	settingNeed   = "list-need"    // how many signers must agree, in digits
	settingList   = "server-list " // and the name of a list: the file
)

const (
	signersMax = serverlist.MaxSigners
	listsMax   = 16
)

// Signer is somebody whose lists of servers the owner believes.
type Signer struct {
	Key  string // 64 hex digits
	Name string // for the owner; may be empty
}

// Signers are all of them.
type Signers struct {
	Need    int // how many must have signed a list
	Signers []Signer
}

// ServerList is a list of servers that was imported.
type ServerList struct {
	Name            string
	Issued, Expires time.Time
	Servers         int      // that this node can dial
	Skipped         int      // addresses that it cannot
	Signers         []string // who has signed it, of those whom the owner believes: names, or keys
	Problem         string   // why it is not used now; empty: it is
	New             bool     // by ImportServers: it was not known before
}

// trust is whom the owner believes.
type trust struct {
	keys  []identity.ListPublic
	names []string
	need  int
}

func readTrust(tx *store.Tx) (trust, error) {
	t := trust{need: 1}
	rows, err := tx.SettingsUnder(settingSigner)
	if err != nil {
		return t, err
	}
	for _, name := range slices.Sorted(maps.Keys(rows)) {
		if key, err := hex.DecodeString(name); err == nil && len(key) == 32 {
			t.keys, t.names = append(t.keys, identity.ListPublic(key)), append(t.names, string(rows[name]))
		}
	}
	b, err := tx.Setting(settingNeed)
	if isNotFound(err) {
		return t, nil
	}
	if n, bad := strconv.Atoi(string(b)); bad == nil {
		t.need = n
	}
	return t, err
}

// show is what a signer is called.
func (t trust) show(key identity.ListPublic) string {
	if i := slices.Index(t.keys, key); i >= 0 && t.names[i] != "" {
		return t.names[i]
	}
	return hex.EncodeToString(key[:])
}

// shown is t as the owner sees it.
func (t trust) shown() Signers {
	out := Signers{Need: t.need}
	for i, k := range t.keys {
		out.Signers = append(out.Signers, Signer{Key: hex.EncodeToString(k[:]), Name: t.names[i]})
	}
	return out
}

func parseSigner(key string) (identity.ListPublic, error) {
	b, err := hex.DecodeString(key)
	if err == nil && len(b) == 32 {
		if k := identity.ListPublic(b); k.Sound() == nil {
			return k, nil
		}
	}
	return identity.ListPublic{}, usage("It has 64 digits of 0-9 and a-f, as kinloom bootstrap key prints it.", "%q is not the key of a signer", event.Clean(key, 100))
}

// Signers gives whose lists the owner believes. Nobody is believed by default.
func (n *Node) Signers(ctx context.Context) (Signers, error) {
	var out Signers
	err := n.read(ctx, func(v *view) error {
		t, err := readTrust(v.tx)
		out = t.shown()
		return err
	})
	return out, err
}

// AddSigner has lists believed that a key has signed. A name is for the owner alone.
func (n *Node) AddSigner(ctx context.Context, key, name string) (Signer, error) {
	k, err := parseSigner(key)
	if err != nil {
		return Signer{}, err
	}
	if name != "" {
		if err := checkName(name); err != nil {
			return Signer{}, err
		}
	}
	s := Signer{Key: hex.EncodeToString(k[:]), Name: name}
	err = n.changeTrust(ctx, func(tx *store.Tx, t trust) error {
		if !slices.Contains(t.keys, k) && len(t.keys) >= signersMax {
			return refused("Remove one first: kinloom bootstrap signer remove KEY.", "%d signers are believed already", signersMax)
		}
		return tx.PutSetting(settingSigner+s.Key, append([]byte{}, name...), false)
	})
	return s, err
}

// RemoveSigner takes back what AddSigner did. Lists that too few have signed then are
// used no longer, and their servers are forgotten.
func (n *Node) RemoveSigner(ctx context.Context, key string) error {
	k, err := parseSigner(key)
	if err != nil {
		return err
	}
	return n.changeTrust(ctx, func(tx *store.Tx, t trust) error {
		switch {
		case !slices.Contains(t.keys, k):
			return notFound("List them: kinloom bootstrap signer list.", "this signer was not believed")
		case len(t.keys) == t.need && t.need > 1:
			return refused(fmt.Sprintf("First: kinloom bootstrap signer need %d.", t.need-1), "%d signers must agree, and no more are believed", t.need)
		}
		return tx.PutSetting(settingSigner+hex.EncodeToString(k[:]), nil, false)
	})
}

// NeedSigners says how many signers must agree on a list.
func (n *Node) NeedSigners(ctx context.Context, need int) error {
	return n.changeTrust(ctx, func(tx *store.Tx, t trust) error {
		if need < 1 || need > max(len(t.keys), 1) {
			return usage("Add signers first: kinloom bootstrap signer add KEY.", "%d cannot have to agree: %d are believed", need, len(t.keys))
		}
		return tx.PutSetting(settingNeed, strconv.AppendInt(nil, int64(need), 10), false)
	})
}

// changeTrust changes whom the owner believes, and what follows from it.
func (n *Node) changeTrust(ctx context.Context, f func(*store.Tx, trust) error) error {
	return n.changeLists(ctx, func(tx *store.Tx) error {
		t, err := readTrust(tx)
		if err != nil {
			return err
		}
		return f(tx, t)
	})
}

// changeLists changes something about lists, and tells the network what is left.
func (n *Node) changeLists(ctx context.Context, f func(*store.Tx) error) error {
	var all []listed
	err := n.change(ctx, func(_ *loop, tx *store.Tx) error {
		if err := f(tx); err != nil {
			return err
		}
		var err error
		all, err = n.lists(tx)
		return err
	})
	if err == nil {
		n.useLists(all)
	}
	return err
}

// listed is an imported list with what it comes to.
type listed struct {
	list    serverlist.List
	servers []peer.AddrInfo
	skipped int
	signers []string
	err     error // of Check
}

// useLists tells the network which servers the lists name. Servers of one that has ended
// stay in the address book as long as they answer.
func (n *Node) useLists(all []listed) {
	if n.net == nil {
		return
	}
	var keep, add []peer.AddrInfo
	for _, l := range all {
		switch {
		case l.err == nil:
			add = append(add, l.servers...)
			fallthrough
		case errors.Is(l.err, serverlist.ErrExpired):
			keep = append(keep, l.servers...)
		}
	}
	n.net.KeepBootstrap(p2p.FromList, keep...)
	n.net.AddBootstrap(p2p.FromList, add...)
}

// startLists tells a network that has just started which servers the lists name.
func (n *Node) startLists(ctx context.Context) error {
	var all []listed
	err := n.read(ctx, func(v *view) (err error) {
		all, err = n.lists(v.tx)
		return err
	})
	if err == nil {
		n.useLists(all)
	}
	return err
}

// lists reads what was imported, by name.
func (n *Node) lists(tx *store.Tx) ([]listed, error) {
	t, err := readTrust(tx)
	if err != nil {
		return nil, err
	}
	rows, err := tx.SettingsUnder(settingList)
	if err != nil {
		return nil, err
	}
	var out []listed
	for _, name := range slices.Sorted(maps.Keys(rows)) {
		if l, err := serverlist.ParseList(rows[name]); err == nil {
			out = append(out, look(l, t, n.cfg.Now()))
		}
	}
	return out, nil
}

// look sorts what a list holds.
func look(l serverlist.List, t trust, now time.Time) listed {
	out := listed{list: l, err: l.Check(now, t.keys, t.need)}
	for _, s := range l.Signatures {
		if slices.Contains(t.keys, s.Key) && s.Key.Verify(l.Body(), s.Signature[:]) == nil {
			out.signers = append(out.signers, t.show(s.Key))
		}
	}
	for _, s := range l.Servers {
		info, err := parseBootstrap(s.Address)
		if err != nil {
			out.skipped++
			continue
		}
		i := slices.IndexFunc(out.servers, func(known peer.AddrInfo) bool { return known.ID == info.ID })
		if i < 0 {
			out.servers = append(out.servers, info)
		} else {
			out.servers[i].Addrs = append(out.servers[i].Addrs, info.Addrs...)
		}
	}
	return out
}

func (l listed) shown(t trust, now time.Time) ServerList {
	out := ServerList{
		Name: l.list.Name, Issued: time.Unix(l.list.Issued, 0), Expires: time.Unix(l.list.Expires, 0),
		Servers: len(l.servers), Skipped: l.skipped, Signers: l.signers,
	}
	if l.err != nil {
		out.Problem = listError(l.err, l.list, serverlist.List{}, t, now).Text
	}
	return out
}

// ServerLists gives the lists that were imported, by name.
func (n *Node) ServerLists(ctx context.Context) ([]ServerList, error) {
	var out []ServerList
	err := n.read(ctx, func(v *view) error {
		t, err := readTrust(v.tx)
		if err != nil {
			return err
		}
		all, err := n.lists(v.tx)
		for _, l := range all {
			out = append(out, l.shown(t, n.cfg.Now()))
		}
		return err
	})
	return out, err
}

// RemoveServerList forgets a list and its servers. An older one of its name can be
// imported then.
func (n *Node) RemoveServerList(ctx context.Context, name string) error {
	return n.changeLists(ctx, func(tx *store.Tx) error {
		if _, err := tx.Setting(settingList + name); isNotFound(err) {
			return notFound("List them: kinloom bootstrap list.", "no list is called %q", event.Clean(name, serverlist.MaxName))
		} else if err != nil {
			return err
		}
		return tx.PutSetting(settingList+name, nil, false)
	})
}

// ImportServers takes a list of servers: its servers are ways into the network as long as
// it is valid. What is refused changes nothing.
func (n *Node) ImportServers(ctx context.Context, file []byte) (ServerList, error) {
	l, err := serverlist.ParseList(file)
	if err != nil {
		return ServerList{}, listError(err, l, l, trust{}, n.cfg.Now())
	}
	var out ServerList
	err = n.changeLists(ctx, func(tx *store.Tx) error {
		now := n.cfg.Now()
		t, err := readTrust(tx)
		if err != nil {
			return err
		}
		if err := l.Check(now, t.keys, t.need); err != nil {
			return listError(err, l, l, t, now)
		}
		b, err := tx.Setting(settingList + l.Name)
		if err != nil && !isNotFound(err) {
			return err
		}
		if old, bad := serverlist.ParseList(b); err == nil && bad == nil {
			if err := l.After(old); err != nil {
				return listError(err, l, old, t, now)
			}
			out.New = l.Issued != old.Issued
		} else {
			out.New = true
			all, err := tx.SettingsUnder(settingList)
			if err != nil {
				return err
			}
			if len(all) >= listsMax {
				return refused("Remove one first: kinloom bootstrap remove NAME.", "%d lists are known already", listsMax)
			}
		}
		fresh := out.New
		out = look(l, t, now).shown(t, now)
		out.New = fresh
		return tx.PutSetting(settingList+l.Name, file, false)
	})
	return out, err
}

// listError puts into words why a list is not used. old is the list of its name that is
// known.
func listError(err error, l, old serverlist.List, t trust, now time.Time) *Error {
	day := func(unix int64) string { return time.Unix(unix, 0).UTC().Format("2006-01-02 15:04") + " UTC" }
	e := &Error{Kind: KindRefused, Err: err, Quiet: true}
	switch {
	case errors.Is(err, serverlist.ErrSigners):
		var by []string
		for _, s := range l.Signatures {
			by = append(by, t.show(s.Key))
		}
		switch signed := countBelieved(l, t); {
		case len(by) == 0:
			e.Text, e.Next = "nobody has signed this list", "Whoever made it signs it: kinloom bootstrap sign FILE --key KEYFILE."
		case signed == 0:
			e.Text = "this list is signed by nobody whom you believe, but by " + strings.Join(by, ", ")
			e.Next = "If somebody whom you trust tells you that a key is theirs, by another way than this list: kinloom bootstrap signer add KEY."
		default:
			e.Text = fmt.Sprintf("%d of those whom you believe must have signed a list, and this one is signed by %d", t.need, signed)
			e.Next = "Get it with more signatures, or ask for fewer: kinloom bootstrap signer need N."
		}
	case errors.Is(err, serverlist.ErrForged):
		e.Text, e.Next = "this list was changed after it was signed, or damaged on its way", "Get it anew, from somebody else if need be."
	case errors.Is(err, serverlist.ErrExpired):
		e.Text, e.Next = "this list has expired on "+day(l.Expires), "Get a newer one from those who make it."
	case errors.Is(err, serverlist.ErrNotYet):
		e.Text, e.Next = "this list is dated "+day(l.Issued)+", which is still to come: by the clock of this computer it is "+day(now.Unix()), "Check the clock: kinloom doctor."
	case errors.Is(err, serverlist.ErrRollback):
		e.Text = fmt.Sprintf("this list is of %s, older than the one of its name that you have, of %s", day(l.Issued), day(old.Issued))
		e.Next = "Get the newest one. To go back for a reason of your own, first: kinloom bootstrap remove " + strconv.Quote(l.Name) + "."
	case errors.Is(err, serverlist.ErrTwo):
		e.Text = "you have another list of this name and date: those who signed have signed two"
		e.Next = "Ask them which one is right. Yours stays; to take the other: kinloom bootstrap remove " + strconv.Quote(l.Name) + "."
	case errors.Is(err, serverlist.ErrVersion):
		e.Text, e.Next = "this list is in a form that this version of kinloom does not know", "Install a newer version."
	case errors.Is(err, serverlist.ErrSize):
		e.Text, e.Next = fmt.Sprintf("this file is no list of servers: it is empty, or larger than %d KiB", serverlist.MaxList>>10), "Give a list as kinloom bootstrap sign writes it."
	default:
		e.Text, e.Quiet = "this file is damaged, or no list of servers", false
		e.Next = "Get it anew, byte for byte: an editor may have changed blanks or ends of lines."
	}
	return e
}

func countBelieved(l serverlist.List, t trust) int {
	signed := 0
	for _, s := range l.Signatures {
		if slices.Contains(t.keys, s.Key) {
			signed++
		}
	}
	return signed
}
