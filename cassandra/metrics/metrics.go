// Package metrics says which of a Cassandra node's MBeans become metrics, and under which names: for the JMX exporter agent
// of development clusters and of the image alike.
package metrics

import _ "embed" // of the rules

// Rules is jmx.yml, the configuration of the JMX exporter agent.
//
//go:embed jmx.yml
var Rules string
