package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/weir-llm/weir/schemas"
)

// leaderAndDisk is a victim: the NATS node that leads the streams of answers, with everything that it has stored.
const leaderAndDisk = "nats leader and its disk"

var nodeNames = []string{"nats-1", "nats-2", "nats-3"}

// natsNode is a server of a cluster, by its addresses.
type natsNode struct{ client, route, monitor string }

// nodeNames are the NATS nodes of the layout that form a cluster.
func (c *cluster) nodeNames() []string {
	if c.layout.clustered() {
		return nodeNames
	}
	return nil
}

func (c *cluster) nodeConfig(name string) string { return filepath.Join(c.work, name+".conf") }

func (c *cluster) nodeStore(name string) string { return filepath.Join(c.work, name) }

// writeNodes writes the configuration of three nodes that find each other, with what decides durability as in nats.conf.
func (c *cluster) writeNodes() error {
	c.nodes = map[string]natsNode{}
	var routes []string
	for _, name := range nodeNames {
		ports, err := freePorts(3)
		if err != nil {
			return err
		}
		c.nodes[name] = natsNode{client: ports[0], route: ports[1], monitor: ports[2]}
		routes = append(routes, "nats://"+ports[1])
	}
	for name, node := range c.nodes {
		config := fmt.Sprintf(`server_name: %s
listen: %q
http: %q
jetstream { store_dir: %q, max_file_store: 20G, sync_interval: always }
cluster { name: chaos, listen: %q, routes: [%s], ping_interval: "5s", ping_max: 2 }
`, name, node.client, node.monitor, c.nodeStore(name), node.route, `"`+strings.Join(routes, `", "`)+`"`)
		if err := os.WriteFile(c.nodeConfig(name), []byte(config), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// loseLeader kills the leader of LLM_REPLIES and removes its store.
func (c *cluster) loseLeader(ctx context.Context) (name string, err error) {
	if name, err = c.leader(ctx, schemas.StreamReplies); err != nil {
		return "", err
	}
	return name, errors.Join(c.kill(name), os.RemoveAll(c.nodeStore(name)))
}

// leader asks the nodes who leads a stream.
func (c *cluster) leader(ctx context.Context, stream string) (name string, err error) {
	for _, node := range c.nodes {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+node.monitor+"/jsz?streams=true", nil)
		if err != nil {
			return "", err
		}
		response, err := plain.Do(request)
		if err != nil {
			return "", err
		}
		var view struct {
			Accounts []struct {
				Streams []struct {
					Name    string `json:"name"`
					Cluster struct {
						Leader string `json:"leader"`
					} `json:"cluster"`
				} `json:"stream_detail"`
			} `json:"account_details"`
		}
		if err := errors.Join(json.NewDecoder(response.Body).Decode(&view), response.Body.Close()); err != nil {
			return "", fmt.Errorf("ask who leads %s: %w", stream, err)
		}
		for _, account := range view.Accounts {
			for _, s := range account.Streams {
				if s.Name == stream && s.Cluster.Leader != "" {
					return s.Cluster.Leader, nil
				}
			}
		}
	}
	return "", fmt.Errorf("nobody leads %s", stream)
}
