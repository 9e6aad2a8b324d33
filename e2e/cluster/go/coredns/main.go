// Command coredns is CoreDNS with the plugins that a test cluster needs, and
// no others: the full program links the clients of four cloud providers.
package main

import (
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"

	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/forward"
	_ "github.com/coredns/coredns/plugin/health"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/loop"
	_ "github.com/coredns/coredns/plugin/ready"
)

// Plugins run in this order, whatever the order in the Corefile.
var directives = []string{"health", "ready", "errors", "cache", "loop", "kubernetes", "forward"}

func main() {
	dnsserver.Directives = directives
	coremain.Run()
}
