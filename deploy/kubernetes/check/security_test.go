package check

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	k8slabels "k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/yaml"
)

func TestNamespaceHasPodSecurityLabels(t *testing.T) {
	labels := at[map[string]any](find(t, rendered(t), "Namespace", "fleet-tracing"), "metadata", "labels")
	for mode, levels := range map[string][]string{"enforce": {"baseline", "restricted"}, "audit": {"restricted"}, "warn": {"restricted"}} {
		assert.Contains(t, levels, labels["pod-security.kubernetes.io/"+mode], mode)
	}
}

// The settings that the level "restricted" demands, of every pod in the manifests. Operators set those of the pods that they add.
func TestPodsAreRestricted(t *testing.T) {
	objects := rendered(t)
	type podSpec struct {
		owner string
		spec  map[string]any
	}
	pods := []podSpec{{"Grafana fleet", at[map[string]any](find(t, objects, "Grafana", "fleet"), "spec", "deployment", "spec", "template", "spec")}}
	for _, o := range objects {
		if spec := at[map[string]any](o, "spec", "template", "spec"); spec != nil {
			pods = append(pods, podSpec{o["kind"].(string) + " " + name(o), spec})
		}
	}
	require.Len(t, pods, 4)
	restricted := func(owner string, container map[string]any) {
		assert.Equal(t, []any{"ALL"}, at[[]any](container, "securityContext", "capabilities", "drop"), owner)
		escalation, set := at[map[string]any](container, "securityContext")["allowPrivilegeEscalation"]
		assert.True(t, set && escalation == false, owner)
		assert.Equal(t, true, at[bool](container, "securityContext", "readOnlyRootFilesystem"), owner)
	}
	for _, p := range pods {
		assert.Equal(t, true, at[bool](p.spec, "securityContext", "runAsNonRoot"), p.owner)
		assert.Equal(t, "RuntimeDefault", at[string](p.spec, "securityContext", "seccompProfile", "type"), p.owner)
		token, set := p.spec["automountServiceAccountToken"]
		assert.True(t, set && token == false, "%s: its pods do not need the Kubernetes API", p.owner)
		for _, c := range slices.Concat(list(p.spec, "containers"), list(p.spec, "initContainers")) {
			restricted(p.owner, c)
		}
	}
	for _, c := range list(find(t, objects, "K8ssandraCluster", "fleet"), "spec", "cassandra", "initContainers") {
		restricted("K8ssandraCluster fleet", c)
	}
}

func TestPrometheusCannotBeControlledOverHTTP(t *testing.T) {
	spec := at[map[string]any](find(t, rendered(t), "Prometheus", "fleet"), "spec")
	assert.Equal(t, "ProcessSignal", spec["reloadStrategy"], "the operator enables the lifecycle endpoints otherwise")
	assert.NotContains(t, spec, "enableAdminAPI")
	assert.NotContains(t, spec, "enableRemoteWriteReceiver")
}

// Passwords and telemetry cross the network encrypted, and clients check the certificate of the nodes.
func TestConnectionsToCassandraAreEncrypted(t *testing.T) {
	objects := rendered(t)
	nodes := at[map[string]any](find(t, objects, "K8ssandraCluster", "fleet"), "spec", "cassandra")
	options := at[map[string]any](nodes, "config", "cassandraYaml")
	assert.Equal(t, map[string]any{"enabled": true, "optional": false, "require_client_auth": false}, options["client_encryption_options"])
	assert.Equal(t, map[string]any{"internode_encryption": "all", "require_client_auth": true}, options["server_encryption_options"])
	certificate := at[map[string]any](find(t, objects, "Certificate", "fleet-cassandra-tls"), "spec")
	secret, password := certificate["secretName"], at[map[string]any](certificate, "keystores", "jks", "passwordSecretRef")
	for _, stores := range []string{"clientEncryptionStores", "serverEncryptionStores"} {
		assert.Equal(t, map[string]any{
			"keystoreSecretRef":   map[string]any{"name": secret, "key": "keystore.jks"},
			"truststoreSecretRef": map[string]any{"name": secret, "key": "truststore.jks"},
			// cert-manager uses one password for both.
			"keystorePasswordSecretRef": password, "truststorePasswordSecretRef": password,
		}, nodes[stores], stores)
	}

	names := at[[]any](certificate, "dnsNames")
	for _, p := range etlPods(t, objects) {
		given := environment(t, objects, p.container)
		assert.Equal(t, "true", given["CASSANDRA_TLS"], p.owner)
		assert.Contains(t, names, given["CASSANDRA_TLS_SERVER_NAME"], p.owner)
		assert.NotContains(t, given, "CASSANDRA_TLS_SKIP_VERIFY", p.owner)
		mounted := slices.IndexFunc(list(p.spec, "volumes"), func(v map[string]any) bool { return at[string](v, "secret", "secretName") == secret })
		require.GreaterOrEqual(t, mounted, 0, p.owner)
		assert.Equal(t, []map[string]any{{"key": "ca.crt", "path": "ca.crt"}}, list(list(p.spec, "volumes")[mounted], "secret", "items"), "%s: not the key", p.owner)
	}
	source := at[map[string]any](find(t, objects, "GrafanaDatasource", "fleet"), "spec")
	assert.Equal(t, true, at[bool](source, "datasource", "jsonData", "tls"))
	assert.Contains(t, names, at[string](source, "datasource", "jsonData", "tlsServerName"))
	assert.False(t, at[bool](source, "datasource", "jsonData", "tlsSkipVerify"))
	assert.True(t, slices.ContainsFunc(list(source, "valuesFrom"), func(v map[string]any) bool {
		return v["targetPath"] == "secureJsonData.tlsCACert" && at[string](v, "valueFrom", "secretKeyRef", "name") == secret
	}))
}

func policies(t *testing.T) (all []networkingv1.NetworkPolicy) {
	t.Helper()
	for _, o := range rendered(t) {
		if o["kind"] == "NetworkPolicy" {
			text, err := yaml.Marshal(o)
			require.NoError(t, err)
			var p networkingv1.NetworkPolicy
			require.NoError(t, yaml.UnmarshalStrict(text, &p))
			all = append(all, p)
		}
	}
	return all
}

// endpoint is a pod with its labels.
type endpoint struct {
	namespace string
	labels    map[string]string
}

func ours(labels ...string) endpoint {
	e := endpoint{"fleet-tracing", map[string]string{}}
	for i := 0; i < len(labels); i += 2 {
		e.labels[labels[i]] = labels[i+1]
	}
	return e
}

// accepts reports whether policies let the pod to, of our namespace, accept a connection.
func accepts(policies []networkingv1.NetworkPolicy, from, to endpoint, port int) bool {
	selected := false
	for _, p := range policies {
		if !slices.Contains(p.Spec.PolicyTypes, networkingv1.PolicyTypeIngress) || !matches(&p.Spec.PodSelector, to.labels) {
			continue
		}
		selected = true
		for _, rule := range p.Spec.Ingress {
			open := len(rule.Ports) == 0 || slices.ContainsFunc(rule.Ports, func(p networkingv1.NetworkPolicyPort) bool { return p.Port.IntValue() == port })
			if open && (len(rule.From) == 0 || slices.ContainsFunc(rule.From, func(peer networkingv1.NetworkPolicyPeer) bool { return isPeer(&peer, from) })) {
				return true
			}
		}
	}
	return !selected
}

func isPeer(peer *networkingv1.NetworkPolicyPeer, e endpoint) bool {
	if peer.NamespaceSelector == nil && e.namespace != "fleet-tracing" {
		return false
	}
	return matches(peer.NamespaceSelector, map[string]string{"kubernetes.io/metadata.name": e.namespace}) && matches(peer.PodSelector, e.labels)
}

// matches reports whether a selector selects what has the labels. Without a selector, everything is selected.
func matches(s *metav1.LabelSelector, labels map[string]string) bool {
	if s == nil {
		return true
	}
	selector, err := metav1.LabelSelectorAsSelector(s)
	return err == nil && selector.Matches(k8slabels.Set(labels))
}

// Only what the programs need is open.
func TestNetworkIsClosedByDefault(t *testing.T) {
	all := policies(t)
	denied := slices.IndexFunc(all, func(p networkingv1.NetworkPolicy) bool { return p.Name == "default-deny" })
	require.GreaterOrEqual(t, denied, 0)
	spec := all[denied].Spec
	assert.Empty(t, spec.PodSelector.MatchLabels)
	assert.Empty(t, spec.PodSelector.MatchExpressions)
	assert.Empty(t, spec.Ingress)
	assert.Empty(t, spec.Egress)
	assert.ElementsMatch(t, []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress}, spec.PolicyTypes)
	for _, p := range all {
		for _, rule := range p.Spec.Egress {
			assert.True(t, len(rule.To) > 0 || len(rule.Ports) > 0 || p.Name == "to-receivers", "%s: pods may connect to anything", p.Name)
		}
	}

	const app, node = "app.kubernetes.io/name", "cassandra.datastax.com/cluster"
	api := ours(app, "fleet-api", "fleet-tracing/etl", "true")
	consumer := ours(app, "fleet-consumer", "fleet-tracing/etl", "true")
	schema, grafana, prometheus, alertmanager := ours(app, "fleet-schema"), ours(app, "fleet-grafana"), ours(app, "prometheus"), ours(app, "alertmanager")
	cassandra, reaper, another := ours(node, "fleet"), ours("k8ssandra.io/reaper", "fleet-dc1-reaper"), ours(app, "another")
	outside := endpoint{"default", nil}
	for _, c := range []struct {
		what     string
		from, to endpoint
		port     int
		want     bool
	}{
		{"senders to the API", outside, api, 8080, true},
		{"senders to its metrics", outside, api, 9464, false},
		{"Prometheus to its metrics", prometheus, consumer, 9464, true},
		{"the API to CQL", api, cassandra, 9042, true},
		{"a consumer to CQL", consumer, cassandra, 9042, true},
		{"the schema's job to CQL", schema, cassandra, 9042, true},
		{"Grafana to CQL", grafana, cassandra, 9042, true},
		{"another pod to CQL", another, cassandra, 9042, false},
		{"another namespace to CQL", outside, cassandra, 9042, false},
		{"Prometheus to CQL", prometheus, cassandra, 9042, false},
		{"Prometheus to the nodes' metrics", prometheus, cassandra, 7070, true},
		{"node to node", cassandra, cassandra, 7001, true},
		{"the API to the nodes' port", api, cassandra, 7000, false},
		{"the API to the management API", api, cassandra, 8080, false},
		{"K8ssandra to the management API", endpoint{"k8ssandra-operator", nil}, cassandra, 8080, true},
		{"Reaper to the nodes", reaper, cassandra, 9042, true},
		{"another pod to Reaper", another, reaper, 8080, false},
		{"Grafana to Prometheus", grafana, prometheus, 9090, true},
		{"the API to Prometheus", api, prometheus, 9090, false},
		{"another namespace to Prometheus", outside, prometheus, 9090, false},
		{"Prometheus to Alertmanager", prometheus, alertmanager, 9093, true},
		{"the API to Alertmanager", api, alertmanager, 9093, true},
		{"Grafana to Alertmanager", grafana, alertmanager, 9093, false},
		{"Alertmanager to Alertmanager", alertmanager, alertmanager, 9094, true},
		{"Prometheus to Grafana's metrics", prometheus, grafana, 3000, true},
		{"another namespace to Grafana", outside, grafana, 3000, false},
		{"anything to a pod without a policy of its own", api, another, 80, false},
	} {
		assert.Equal(t, c.want, accepts(all, c.from, c.to, c.port), c.what)
	}
}
