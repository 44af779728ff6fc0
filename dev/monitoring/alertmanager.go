package monitoring

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/fleettracing/fleet-tracing/dev/process"
)

// AlertmanagerOptions configure Alertmanager.
type AlertmanagerOptions struct {
	Options
	// Webhook enables the receivers webhook and watchdog of alertmanager.yml. They send to /alerts and /watchdog of this URL with
	// the bearer token development. Without it, all receivers are disabled.
	Webhook string // for example http://127.0.0.1:12345
}

// StartAlertmanager starts Alertmanager with prometheus/alertmanager of the repository and returns when it is ready.
func StartAlertmanager(ctx context.Context, o AlertmanagerOptions) (*process.Server, error) {
	if err := o.prepare("Alertmanager", FindAlertmanager, o.configure); err != nil {
		return nil, err
	}
	return o.start(ctx, "Alertmanager", "/-/ready", []string{
		"--config.file=" + filepath.Join(o.config(), "alertmanager.yml"),
		"--storage.path=" + o.data(),
		"--web.listen-address=" + o.Address,
		"--web.external-url=" + o.url(),
		"--cluster.listen-address=", // no cluster
	}, nil)
}

// Paths and addresses in alertmanager.yml, which is for a container, and the lines that disable a receiver.
const (
	containerDir   = "/etc/alertmanager/"
	webhookAddress = "http://localhost:9095/"
)

var webhookDisabled = regexp.MustCompile(`(receiver: (?:webhook|watchdog)\n(?: +[a-z_]+: .*\n)*?) +mute_time_intervals: \[not set up\]\n`)

func (o *AlertmanagerOptions) configure() error {
	if err := o.copyConfig("prometheus", "alertmanager"); err != nil {
		return err
	}
	path := filepath.Join(o.config(), "alertmanager.yml")
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	text := strings.ReplaceAll(string(content), containerDir, o.config()+"/")
	if o.Webhook != "" {
		text = webhookDisabled.ReplaceAllString(text, "$1")
		text = strings.ReplaceAll(text, webhookAddress, o.Webhook+"/")
	}
	token := filepath.Join(o.config(), "secrets", "webhook_token")
	return errors.Join(os.WriteFile(path, []byte(text), 0o644), os.WriteFile(token, []byte("development"), 0o600))
}
