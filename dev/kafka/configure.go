package kafka

import (
	"bytes"
	"context"
	"crypto/x509"
	_ "embed"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"text/template"
)

//go:embed server.properties.tmpl
var propertiesText string

//go:embed log4j2.yaml
var loggingText []byte

var propertiesTemplate = template.Must(template.New("server.properties").Parse(propertiesText))

const clusterID = "5L6g3nShT-eMCtK--X86sw"

// configure writes the configuration with a certificate, and formats the data directory if it is missing.
func (b *Broker) configure(ctx context.Context, java, jars string) error {
	certificate, key, err := certificateAndKey()
	if err != nil {
		return fmt.Errorf("configure kafka: %w", err)
	}
	oneLine := func(pem []byte) string { return strings.ReplaceAll(strings.TrimSpace(string(pem)), "\n", `\n`) } // as in .properties files
	var text bytes.Buffer
	if err := propertiesTemplate.Execute(&text, map[string]string{
		"Plain": b.at(0), "Controller": b.at(1), "TLS": b.at(2), "Data": b.data(), "User": User, "Password": Password,
		"Certificate": oneLine(certificate), "Key": oneLine(key),
	}); err != nil {
		return fmt.Errorf("configure kafka: %w", err)
	}
	for path, content := range map[string][]byte{
		b.properties(): text.Bytes(), filepath.Join(b.dir, "log4j2.yaml"): loggingText, b.CAFile(): certificate,
	} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			return fmt.Errorf("configure kafka: %w", err)
		}
	}
	// A formatted directory has this file.
	if _, err := os.Stat(filepath.Join(b.data(), "meta.properties")); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	args := []string{"-Xmx128M", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", filepath.Join(jars, "*"), "kafka.tools.StorageTool",
		"format", "-t", clusterID, "-c", b.properties(), "--ignore-formatted"}
	for _, mechanism := range []string{"SCRAM-SHA-256", "SCRAM-SHA-512"} {
		args = append(args, "--add-scram", fmt.Sprintf("%s=[name=%s,password=%s]", mechanism, User, Password))
	}
	if out, err := exec.CommandContext(ctx, java, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("format kafka's data in %s: %w; output:\n%s", b.data(), err, bytes.TrimSpace(out))
	}
	return nil
}

// certificateAndKey returns the certificate of httptest for 127.0.0.1, which signs itself, and its key.
func certificateAndKey() (certificate, key []byte, err error) {
	server := httptest.NewTLSServer(nil)
	defer server.Close()
	pair := server.TLS.Certificates[0]
	secret, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), err
}
