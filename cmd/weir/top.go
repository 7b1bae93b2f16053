package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/schemas"
)

const (
	topEvery = time.Second
	topLeast = 200 * time.Millisecond
	// topListens is how long weir top --once listens: every process beats twice in it, so that there are rates.
	topListens = 2*schemas.HeartbeatInterval + 200*time.Millisecond
)

func (c *cli) topCommand() *cobra.Command {
	var once bool
	var every time.Duration
	cmd := &cobra.Command{
		Use:     "top",
		GroupID: groupUse,
		Short:   "Watch tenants, models, workers and routers",
		Long: `Shows who waits for what, who runs it and how fast, from the heartbeats of routers
and workers, until it is stopped. On a terminal the view is redrawn in place. With
--json each refresh is one line.`,
		Args: arguments(0, 0, "no argument"),
		RunE: func(cmd *cobra.Command, _ []string) error { return c.top(cmd.Context(), once, every) },
	}
	cmd.Flags().BoolVar(&once, "once", false, "show one view and stop")
	cmd.Flags().DurationVar(&every, "every", topEvery, "`duration` between two refreshes, at least 200ms")
	return cmd
}

func (c *cli) top(ctx context.Context, once bool, every time.Duration) (err error) {
	if every < topLeast {
		return usageError{fmt.Errorf("--every %s is too short: use at least %s", every, topLeast), "weir top"}
	}
	cfg, err := c.config()
	if err != nil {
		return err
	}
	b, err := c.log(ctx, cfg, "top")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	board, stop, err := listen(b)
	if err != nil {
		return err
	}
	defer stop()
	if once {
		if err := pause(ctx, topListens/2, 1); err != nil {
			return stopped(ctx, err)
		}
		board.view(time.Now()) // rates are counted from here
		if err := pause(ctx, topListens/2, 1); err != nil {
			return stopped(ctx, err)
		}
		return c.showTop(board.view(time.Now()), false)
	}
	return c.followTop(ctx, board, every)
}

// listen leads the heartbeats to a new board, until stop is called.
func listen(b *bus.Bus) (board *board, stop func(), err error) {
	board = newBoard()
	stopWorkers, err := b.OnBeat(func(h *schemas.Heartbeat) { board.worker(h, time.Now()) })
	if err != nil {
		return nil, nil, err
	}
	stopRouters, err := b.OnRouterBeat(func(h *schemas.RouterBeat) { board.router(h, time.Now()) })
	if err != nil {
		stopWorkers()
		return nil, nil, err
	}
	return board, func() { stopWorkers(); stopRouters() }, nil
}

// What a terminal is told: another screen without a cursor and without wrapped lines, and back.
const (
	screenOn  = "\x1b[?1049h\x1b[?25l\x1b[?7l"
	screenOff = "\x1b[?7h\x1b[?25h\x1b[?1049l"
	lineEnd   = "\x1b[K\n"
)

func (c *cli) followTop(ctx context.Context, board *board, every time.Duration) (err error) {
	redraw := c.terminal && !c.json
	if redraw {
		fmt.Fprint(c.stdout, screenOn)
		defer fmt.Fprint(c.stdout, screenOff)
	}
	for {
		if err := pause(ctx, every, 1); err != nil {
			return stopped(ctx, err)
		}
		if err := c.showTop(board.view(time.Now()), redraw); err != nil {
			return err
		}
	}
}

func (c *cli) showTop(v *topView, redraw bool) error {
	if c.json {
		return json.NewEncoder(c.stdout).Encode(v)
	}
	var text strings.Builder
	v.write(&text)
	if !redraw {
		text.WriteByte('\n') // between two views
		_, err := io.WriteString(c.stdout, text.String())
		return err
	}
	lines := strings.Split(strings.TrimSuffix(text.String(), "\n"), "\n")
	lines = lines[:min(len(lines), c.height()-1)]
	_, err := io.WriteString(c.stdout, "\x1b[H"+strings.Join(lines, lineEnd)+lineEnd+"\x1b[J")
	return err
}

// height is that of the terminal, in lines.
func (c *cli) height() int {
	if f, ok := c.stdout.(*os.File); ok {
		if _, height, err := term.GetSize(int(f.Fd())); err == nil && height > 1 {
			return height
		}
	}
	return 24
}
