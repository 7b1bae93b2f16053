package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/weir-llm/weir/schemas"
)

// replay is what the flags of the command say.
type replay struct {
	tenant string
	since  time.Duration
	pace   float64
}

func (c *cli) replayCommand() *cobra.Command {
	var r replay
	cmd := &cobra.Command{
		Use:     "replay [REQUEST]",
		GroupID: groupUse,
		Short:   "Show again exactly what happened",
		Long: `Shows what happened to a request, or to all requests of a tenant since a time: frame
by frame as committed while the log has the frames (about two hours), and event by
event with the original times from the result for ever after. The log is read from
NATS and the results from NATS and from the database.

REQUEST is an id of the tenant that --tenant names, or tenant/id.`,
		Example: "  weir replay req_01JDFV3Z8Q4N6W2X9Y0T1R5S7P\n  weir replay --tenant acme --since 1h --json",
		Args:    arguments(0, 1, "at most one request id"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 && r.since <= 0 {
				return usageError{errors.New("name a request, or a time with --since"), cmd.CommandPath()}
			}
			if len(args) == 1 && r.since > 0 {
				return usageError{errors.New("name either a request or a time, not both"), cmd.CommandPath()}
			}
			return c.replay(cmd.Context(), r, args)
		},
	}
	cmd.Flags().StringVar(&r.tenant, "tenant", "", "`tenant` of the request (default \"default\"), or whose requests are shown")
	cmd.Flags().DurationVar(&r.since, "since", 0, "all requests accepted in the last `duration`, such as 1h")
	cmd.Flags().Float64Var(&r.pace, "pace", 0, "wait between frames as it was then: 1 at the original `speed`, 2 twice as fast, 0 not at all")
	return cmd
}

const defaultTenant = "default"

func (c *cli) replay(ctx context.Context, r replay, args []string) error {
	cfg, err := c.config()
	if err != nil {
		return err
	}
	history, err := c.openHistory(ctx, cfg)
	if err != nil {
		return err
	}
	defer history.close()
	show := func(s *story) error {
		return stopped(ctx, c.play(ctx, s, r.pace))
	}
	if len(args) == 0 {
		shown, err := history.since(ctx, r.tenant, time.Now().Add(-r.since), show)
		if err == nil && shown == 0 && ctx.Err() == nil {
			fmt.Fprintln(c.stderr, "No request that was accepted in that time has ended.")
		}
		return err
	}
	id, err := parseRequest(r.tenant, args[0])
	if err != nil {
		return err
	}
	s, err := history.story(ctx, id, nil)
	if err != nil {
		return err
	}
	return show(s)
}

func parseRequest(tenant, request string) (schemas.Identity, error) {
	if t, r, ok := strings.Cut(request, "/"); ok {
		if tenant != "" && tenant != t {
			return schemas.Identity{}, fmt.Errorf("%s is not a request of tenant %s", request, tenant)
		}
		tenant, request = t, r
	}
	if tenant == "" {
		tenant = defaultTenant
	}
	id := schemas.Identity{Tenant: tenant, Request: request}
	return id, id.Validate()
}

// play shows a story, waiting between its frames as long as it took then, divided by speed.
func (c *cli) play(ctx context.Context, s *story, speed float64) error {
	show := &teller{out: c.stdout, story: s}
	tell := show.tell
	if c.json {
		tell = show.tellJSON
	} else if err := show.title(); err != nil {
		return err
	}
	last := s.begin()
	for f, err := range s.frames() {
		if err != nil {
			return err
		}
		if err := pause(ctx, f.Time.Sub(last), speed); err != nil {
			return err
		}
		if err := tell(f); err != nil {
			return err
		}
		last = f.Time
	}
	return nil
}

func pause(ctx context.Context, d time.Duration, speed float64) error {
	if speed <= 0 || d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(time.Duration(float64(d) / speed))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
