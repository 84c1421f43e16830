// Reads a dashboard from standard input by Grafana's own library, which knows every field of it and refuses any other.
package main

import (
	"fmt"
	"io"
	"os"

	"github.com/grafana/grafana-foundation-sdk/go/cog/plugins"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
)

func main() {
	plugins.RegisterDefaultPlugins()
	data, err := io.ReadAll(os.Stdin)
	refuse(err)
	board := dashboard.Dashboard{}
	refuse(board.UnmarshalJSONStrict(data))
	refuse(board.Validate())
	fmt.Printf("%d panels\n", len(board.Panels))
}

// The library's lists of errors may be empty.
func refuse(err error) {
	if err != nil && err.Error() != "" {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
