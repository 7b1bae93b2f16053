// Package certstest makes certificate authorities and certificates for tests, as PEM files in temporary folders.
package certstest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Authority signs certificates.
type Authority struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

// Pair are the files of a certificate and its key.
type Pair struct{ Cert, Key string }

// NewAuthority makes an authority.
func NewAuthority(t testing.TB) *Authority {
	t.Helper()
	a := &Authority{t: t, key: newKey(t)}
	template := &x509.Certificate{
		SerialNumber: serial(t), Subject: pkix.Name{CommonName: "test authority"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	a.cert, a.pem = sign(t, template, template, &a.key.PublicKey, a.key)
	return a
}

// Pool holds the authority.
func (a *Authority) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

// File writes the authority to a file of its own.
func (a *Authority) File() string {
	a.t.Helper()
	file := filepath.Join(a.t.TempDir(), "ca.pem")
	a.WriteTo(file)
	return file
}

// WriteTo replaces a file by the authority.
func (a *Authority) WriteTo(file string) { a.t.Helper(); Replace(a.t, file, a.pem) }

// Issue writes a certificate for hosts, which are names or addresses, for servers and clients alike.
func (a *Authority) Issue(hosts ...string) Pair {
	a.t.Helper()
	dir := a.t.TempDir()
	p := Pair{Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem")}
	a.Reissue(p, hosts...)
	return p
}

// Reissue replaces the files of a certificate by a new one.
func (a *Authority) Reissue(p Pair, hosts ...string) {
	a.t.Helper()
	a.write(p, time.Now().Add(time.Hour), hosts)
}

// Expired replaces the files of a certificate by one that has expired.
func (a *Authority) Expired(p Pair, hosts ...string) {
	a.t.Helper()
	a.write(p, time.Now().Add(-time.Minute), hosts)
}

func (a *Authority) write(p Pair, until time.Time, hosts []string) {
	a.t.Helper()
	template := &x509.Certificate{
		SerialNumber: serial(a.t), Subject: pkix.Name{CommonName: "test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: until,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	key := newKey(a.t)
	_, cert := sign(a.t, template, a.cert, &key.PublicKey, a.key)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	check(a.t, err)
	Replace(a.t, p.Key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	Replace(a.t, p.Cert, cert)
}

// Load reads the files of a certificate.
func (p Pair) Load(t testing.TB) tls.Certificate {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(p.Cert, p.Key)
	check(t, err)
	return pair
}

// Serial is the certificate's number, which tells it from the one that it replaced.
func (p Pair) Serial(t testing.TB) string { t.Helper(); return p.Load(t).Leaf.SerialNumber.String() }

// Replace writes a file as a careful operator does: a reader sees the old content or the new.
func Replace(t testing.TB, file string, data []byte) {
	t.Helper()
	check(t, os.WriteFile(file+".new", data, 0o600))
	check(t, os.Rename(file+".new", file))
}

func sign(t testing.TB, template, parent *x509.Certificate, public *ecdsa.PublicKey, signer *ecdsa.PrivateKey) (*x509.Certificate, []byte) {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, signer)
	check(t, err)
	cert, err := x509.ParseCertificate(der)
	check(t, err)
	return cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	return key
}

func serial(t testing.TB) *big.Int {
	t.Helper()
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 100))
	check(t, err)
	return n.Add(n, big.NewInt(1))
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
