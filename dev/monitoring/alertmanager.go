package monitoring

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// AlertmanagerOptions configure Alertmanager.
type AlertmanagerOptions struct {
	Options
	// Webhook enables the receivers webhook and watchdog of alertmanager.yml. They send to /alerts and /watchdog of this URL with
	// the bearer token Token. Without it, all receivers are disabled.
	Webhook string // for example http://127.0.0.1:12345
	Token   string // default development
}

// StartAlertmanager starts Alertmanager with prometheus/alertmanager of the repository and returns when it is ready.
func StartAlertmanager(ctx context.Context, o AlertmanagerOptions) (*Process, error) {
	var err error
	if o.Options, err = o.complete(ctx, FindAlertmanager); err != nil {
		return nil, fmt.Errorf("start Alertmanager: %w", err)
	}
	if err := o.configure(); err != nil {
		return nil, fmt.Errorf("configure Alertmanager: %w", err)
	}
	return o.start(ctx, "Alertmanager", "/-/ready", []string{
		"--config.file=" + filepath.Join(o.config(), "alertmanager.yml"),
		"--storage.path=" + o.data(),
		"--web.listen-address=" + o.address(),
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

func (o AlertmanagerOptions) configure() error {
	edit := func(file, text string) string {
		if file == "alertmanager.yml" {
			text = strings.ReplaceAll(text, containerDir, o.config()+"/")
			if o.Webhook != "" {
				text = webhookDisabled.ReplaceAllString(text, "$1")
				text = strings.ReplaceAll(text, webhookAddress, strings.TrimSuffix(o.Webhook, "/")+"/")
			}
		}
		if o.Edit != nil {
			text = o.Edit(file, text)
		}
		return text
	}
	if err := copyConfig(filepath.Join(o.Root, "prometheus", "alertmanager"), o.config(), edit); err != nil {
		return err
	}
	if o.Webhook == "" {
		return nil
	}
	token := o.Token
	if token == "" {
		token = "development"
	}
	return os.WriteFile(filepath.Join(o.config(), "secrets", "webhook_token"), []byte(token), 0o600)
}
