// Package metrics has the rules that turn the MBeans of a Cassandra node into metrics. The JMX exporter agents of development
// clusters and of the image use the same rules.
package metrics

import _ "embed" // for Rules

// Rules is jmx.yml, the configuration of the JMX exporter agent.
//
//go:embed jmx.yml
var Rules string
