package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kinloom/kinloom/node/p2p"
	"github.com/kinloom/kinloom/node/store"
	"github.com/kinloom/kinloom/protocol/event"
	"github.com/kinloom/kinloom/protocol/serverlist"
)

// settingSource begins the name under which a place lies that is asked for servers when
// none answers; the rest is the place, the value what came of the last time.
const settingSource = "server-source "

const (
	sourcesMax = 16
	// sourceEvery is how long a place that was asked is not asked again; sourceTime what
	// it has for its answer.
	sourceEvery = 15 * time.Minute
	sourceTime  = 20 * time.Second
	// sourceLength bounds the name of a place, txtMax the records of a name that are
	// looked at, txtLength one of them, in bytes.
	sourceLength = 512
	txtMax       = serverlist.MaxServers
	txtLength    = 512
	// dnsPrefix begins a place that is a name, asked as "_dnsaddr." and the name.
	dnsPrefix = "dns:"
)

// Source is a place that the owner named, which is asked for servers when no known one
// answers: "dns:example.org", a name whose TXT records name servers, unsigned; or the
// URL of a signed list.
type Source struct {
	Place   string
	Asked   time.Time // zero: never
	Servers int       // that it named then
	Problem string    // why it named none; empty: it did, or was never asked
}

// sourceRow is what is kept of one.
type sourceRow struct {
	Asked   int64  `json:"asked,omitempty"`
	Servers int    `json:"servers,omitempty"`
	Problem string `json:"problem,omitempty"`
	// Peers are the servers that a name gave last, which go with it.
	Peers []peer.ID `json:"peers,omitempty"`
}

// IsSource reports whether text is meant as a place to ask, and not as an address.
func IsSource(text string) bool {
	return strings.HasPrefix(text, dnsPrefix) || strings.Contains(text, "://")
}

// AddSource names a place that is asked for servers when no known one answers, and not
// before. A node that stays on the LAN, or takes no part in the look-up network, never
// asks.
func (n *Node) AddSource(ctx context.Context, place string) (Source, error) {
	place, err := n.checkSource(place)
	if err != nil {
		return Source{}, err
	}
	out := Source{Place: place}
	err = n.change(ctx, func(_ *loop, tx *store.Tx) error {
		t, err := readTrust(tx)
		if err != nil {
			return err
		}
		if len(t.keys) == 0 && !strings.HasPrefix(place, dnsPrefix) {
			return refused("Add one first: kinloom bootstrap signer add KEY.", "a list from the web counts by its signers alone, and you believe none yet")
		}
		all, err := tx.SettingsUnder(settingSource)
		if err != nil {
			return err
		}
		if row, ok := all[place]; ok {
			out = showSource(place, row)
			return nil
		}
		if len(all) >= sourcesMax {
			return refused("Remove one first: kinloom bootstrap remove PLACE.", "%d places are named already", sourcesMax)
		}
		return putSource(tx, place, sourceRow{})
	})
	if err == nil && n.net != nil && n.net.Silent() {
		n.edge.noServer()
	}
	return out, err
}

// checkSource gives the one spelling of a place.
func (n *Node) checkSource(place string) (string, error) {
	bad := usage("Give a name like dns:example.org, or the URL of a signed list like https://example.org/servers.", "%q is no place to ask for servers", event.Clean(place, 200))
	if len(place) > sourceLength {
		return "", bad
	}
	if name, ok := strings.CutPrefix(place, dnsPrefix); ok {
		name = strings.ToLower(strings.TrimSuffix(name, "."))
		if !isDomain(name) {
			return "", bad
		}
		if n.cfg.Proxy != "" {
			return "", refused("Give the URL of a signed list instead: it is fetched through the proxy.", "names are not asked where everything leaves by an HTTP proxy: the question would go past it")
		}
		return dnsPrefix + name, nil
	}
	u, err := url.Parse(place)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" || u.Fragment != "" || u.Opaque != "" {
		return "", bad
	}
	if u.User != nil {
		return "", usage("Give the address alone.", "a password does not belong into an address, which others can see")
	}
	return u.String(), nil
}

// isDomain reports whether name is one of the Internet, in its ASCII form.
func isDomain(name string) bool {
	labels := strings.Split(name, ".")
	if len(name) > 240 || len(labels) < 2 || net.ParseIP(name) != nil {
		return false
	}
	for _, l := range labels {
		if l == "" || len(l) > 63 || strings.Trim(l, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" || l[0] == '-' || l[len(l)-1] == '-' {
			return false
		}
	}
	return true
}

func putSource(tx *store.Tx, place string, row sourceRow) error {
	b, err := json.Marshal(row)
	if err != nil {
		return fmt.Errorf("write a source: %w", err)
	}
	return tx.PutSetting(settingSource+place, b, false)
}

func showSource(place string, b []byte) Source {
	out := Source{Place: place}
	var row sourceRow
	if err := json.Unmarshal(b, &row); err == nil {
		out.Servers, out.Problem = row.Servers, row.Problem
		if row.Asked != 0 {
			out.Asked = time.Unix(row.Asked, 0)
		}
	}
	return out
}

// Sources gives the places that the owner named, by name.
func (n *Node) Sources(ctx context.Context) ([]Source, error) {
	var out []Source
	err := n.read(ctx, func(v *view) error {
		rows, err := v.tx.SettingsUnder(settingSource)
		for _, place := range slices.Sorted(maps.Keys(rows)) {
			out = append(out, showSource(place, rows[place]))
		}
		return err
	})
	return out, err
}

// RemoveSource takes back what AddSource did.
func (n *Node) RemoveSource(ctx context.Context, place string) error {
	var left []peer.AddrInfo // that other names gave
	err := n.change(ctx, func(_ *loop, tx *store.Tx) error {
		all, err := tx.SettingsUnder(settingSource)
		if err != nil {
			return err
		}
		if _, ok := all[place]; !ok {
			place = strings.ToLower(strings.TrimSuffix(place, "."))
		}
		if _, ok := all[place]; !ok {
			return notFound("List them: kinloom bootstrap list.", "this place was not named")
		}
		for other, raw := range all {
			var row sourceRow
			if other == place || json.Unmarshal(raw, &row) != nil {
				continue
			}
			for _, p := range row.Peers {
				left = append(left, peer.AddrInfo{ID: p})
			}
		}
		return tx.PutSetting(settingSource+place, nil, false)
	})
	if err == nil && n.net != nil && strings.HasPrefix(place, dnsPrefix) {
		n.net.KeepBootstrap(p2p.FromDNS, left...)
	}
	return err
}

// noServer implements p2p.Config.Silent.
func (e *edge) noServer() {
	select {
	case e.silent <- struct{}{}:
	default:
	}
}

// asker asks the places that the owner named whenever no server answers, until ctx ends.
func (e *edge) asker(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-e.silent:
		}
		if err := e.n.askSources(ctx); err != nil && ctx.Err() == nil {
			e.n.cfg.Log.Warn("places for servers could not be asked", "error", err)
		}
	}
}

// askSources asks one place after the other, those asked long ago first, until one names
// servers. The next ones have their turn if these do not answer.
func (n *Node) askSources(ctx context.Context) error {
	if n.cfg.LANOnly {
		return nil
	}
	all, err := n.Sources(ctx)
	if err != nil {
		return err
	}
	slices.SortStableFunc(all, func(a, b Source) int { return a.Asked.Compare(b.Asked) })
	for _, s := range all {
		now := n.cfg.Now()
		if since := now.Sub(s.Asked); since >= 0 && since < sourceEvery {
			continue
		}
		row := sourceRow{Asked: now.Unix()}
		row.Servers, row.Peers, err = n.askSource(ctx, s.Place)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			row.Problem = problemText(err)
			n.cfg.Log.Info("a place named no servers", "error", err)
		}
		err := n.change(ctx, func(_ *loop, tx *store.Tx) error {
			if _, err := tx.Setting(settingSource + s.Place); isNotFound(err) {
				return nil // removed meanwhile
			} else if err != nil {
				return err
			}
			return putSource(tx, s.Place, row)
		})
		if err != nil || row.Servers > 0 {
			return err
		}
	}
	return nil
}

// problemText is an error for somebody who lists the places: no next step, no addresses.
func problemText(err error) string {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Text
	}
	return "it could not be asked"
}

// askSource asks one place and returns how many servers it named, and which, if nobody
// signed them.
func (n *Node) askSource(ctx context.Context, place string) (int, []peer.ID, error) {
	ctx, cancel := context.WithTimeout(ctx, sourceTime)
	defer cancel()
	if name, ok := strings.CutPrefix(place, dnsPrefix); ok {
		servers, err := n.askName(ctx, name)
		return len(servers), servers, err
	}
	file, err := n.fetchList(ctx, place)
	if err != nil {
		return 0, nil, err
	}
	l, err := n.ImportServers(ctx, file)
	return l.Servers, nil, err
}

// askName asks a name for its servers. Nobody has signed the answer: it names machines,
// whose keys are checked when they are dialled, and which can withhold.
func (n *Node) askName(ctx context.Context, name string) ([]peer.ID, error) {
	if n.cfg.Proxy != "" {
		return nil, refused("", "not asked: everything leaves by an HTTP proxy, and the question would go past it")
	}
	records, err := n.cfg.LookupTXT(ctx, "_dnsaddr."+name+".") // the dot: no domain of ours is tried behind it
	if no, ok := errors.AsType[*net.DNSError](err); ok && no.IsNotFound {
		return nil, notFound("", "the name has no servers")
	}
	if err != nil {
		return nil, &Error{Kind: KindTimeout, Err: err, Quiet: true, Text: "the name could not be asked: no answer"}
	}
	var servers []peer.AddrInfo
	var ids []peer.ID
	for _, r := range records[:min(len(records), txtMax)] {
		address, ok := strings.CutPrefix(r, "dnsaddr=")
		if !ok || len(r) > txtLength {
			continue
		}
		if info, err := parseBootstrap(address); err == nil {
			servers, ids = append(servers, info), append(ids, info.ID)
		}
	}
	if len(servers) == 0 {
		return nil, notFound("", "the name has no servers")
	}
	n.net.AddBootstrap(p2p.FromDNS, servers...)
	return ids, nil
}

// fetchList gets a list from the web, through the proxy if there is one.
func (n *Node) fetchList(ctx context.Context, place string) ([]byte, error) {
	proxy, err := n.cfg.proxy()
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{
		DisableKeepAlives: true, DisableCompression: true, MaxResponseHeaderBytes: 16 << 10,
		TLSHandshakeTimeout: sourceTime / 2,
	}
	if proxy != nil { // the environment is not asked
		transport.Proxy = http.ProxyURL(proxy)
	}
	c := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, place, nil)
	if err != nil {
		return nil, usage("", "this is not an address of the web")
	}
	request.Header.Set("User-Agent", "kinloom")
	response, err := c.Do(request)
	if err != nil {
		e := &Error{Kind: KindTimeout, Err: err, Quiet: true, Text: "the server of the list does not answer"}
		if proxy != nil {
			e.Text += ", or the HTTP proxy lets nothing through"
		}
		return nil, e
	}
	defer response.Body.Close()
	switch code := response.StatusCode; {
	case code >= 300 && code < 400:
		return nil, refused("", "the server of the list sends on to another place; name that one if you mean it")
	case code != http.StatusOK:
		return nil, refused("", "the server of the list answered with status %d", code)
	}
	b, err := io.ReadAll(io.LimitReader(response.Body, serverlist.MaxList+1))
	if err != nil {
		return nil, &Error{Kind: KindTimeout, Err: err, Quiet: true, Text: "the list broke off on its way"}
	}
	return b, nil
}
