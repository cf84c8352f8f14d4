package p2p

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"github.com/quic-go/quic-go"

	"github.com/kinloom/kinloom/protocol/rv"
)

// apart listens on QUIC for a host whose clock is a day away: its own certificate
// begins tomorrow, or it takes ours for one of tomorrow.
func apart(t *testing.T, key crypto.PrivKey, theirs bool) ma.Multiaddr {
	t.Helper()
	begins := time.Now().Add(-time.Hour)
	if theirs {
		begins = begins.Add(26 * time.Hour)
	}
	id, err := libp2ptls.NewIdentity(key, libp2ptls.WithCertTemplate(&x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{SerialNumber: "1"}, NotBefore: begins, NotAfter: begins.Add(24 * 365 * time.Hour),
	}))
	if err != nil {
		t.Fatal(err)
	}
	conf, _ := id.ConfigForPeer("")
	if !theirs {
		conf.VerifyPeerCertificate = func([][]byte, [][]*x509.Certificate) error {
			return errors.New("x509: certificate has expired or is not yet valid")
		}
	}
	l, err := quic.ListenAddr("127.0.0.1:0", &tls.Config{
		Certificates: conf.Certificates, ClientAuth: tls.RequireAnyClientCert, NextProtos: []string{"libp2p"}, MinVersion: tls.VersionTLS13,
		VerifyPeerCertificate: conf.VerifyPeerCertificate,
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			if _, err := l.Accept(context.Background()); err != nil {
				return
			}
		}
	}()
	a, err := manet.FromNetAddr(l.Addr())
	if err != nil {
		t.Fatal(err)
	}
	return ma.Join(a, ma.StringCast("/quic-v1"))
}

// TestCertificateOfTomorrow: where two clocks are 26 h apart, QUIC fails, in the
// handshake or right after it, and everything goes over TCP: a connection with a
// contact, and a look-up through a server. It goes over the real transports.
func TestCertificateOfTomorrow(t *testing.T) {
	for _, theirs := range []bool{true, false} {
		name := map[bool]string{true: "their clock is fast", false: "ours is"}[theirs]
		t.Run(name, func(t *testing.T) {
			key := newKey(t)
			server := start(t, Config{Profile: Server, Key: key, Listen: []ma.Multiaddr{loopTCP}})
			id, _ := server.PeerIDs()
			tcp, quic := addrOf(t, server, "tcp"), apart(t, key, theirs)
			n := start(t, Config{Profile: Client, Listen: []ma.Multiaddr{loopQUIC, loopTCP}})

			begin, tries := time.Now(), 0
			for {
				tries++
				_, err := n.Dial(t.Context(), id, []ma.Multiaddr{quic, tcp})
				if err == nil {
					if err = say(t.Context(), n, id, "hello"); err == nil {
						break
					}
				}
				if tries == 2 {
					t.Fatalf("no way to somebody whose clock is wrong: %v", err)
				}
				for gone := time.Now(); ; { // as the caller hears by Disconnected, once it is noted
					n.turned.mu.Lock()
					noted := len(n.turned.at) > 0
					n.turned.mu.Unlock()
					if _, ok := n.Connected(id); !ok && noted {
						break
					}
					if time.Since(gone) > 5*time.Second {
						t.Fatal("the connection stays")
					}
				}
			}
			if path, ok := n.Connected(id); !ok || path.Transport != "tcp" || tries > 1 && theirs {
				t.Errorf("after %d tries the path is %+v", tries, path)
			}
			if took := time.Since(begin); took > 5*time.Second {
				t.Errorf("connected after %s", took)
			}
			n.ClosePeer(id)
			_, err := n.Dial(t.Context(), id, []ma.Multiaddr{quic})
			if de, ok := errors.AsType[*DialError](err); theirs && (!ok || !strings.Contains(de.Details(), "not yet valid")) {
				t.Errorf("over QUIC alone: %v", err)
			}

			// Another node, which has tried nothing yet, and looks something up.
			n = start(t, Config{Profile: Client, Listen: []ma.Multiaddr{loopQUIC, loopTCP}, Bootstrap: []peer.AddrInfo{{ID: id, Addrs: []ma.Multiaddr{quic, tcp}}}})
			point, record := sealed(t, 1, rv.PeriodAt(time.Now()), 1)
			if err := n.PublishRecord(t.Context(), point, record); err != nil {
				t.Fatal(err)
			}
			var got []byte
			if _, err := n.FindRecord(t.Context(), Point{ID: point}, func(b []byte, _ time.Time) { got = b }); err != nil || !bytes.Equal(got, record) {
				t.Errorf("found %d bytes, %v", len(got), err)
			}
		})
	}
}
