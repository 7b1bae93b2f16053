package main

import (
	"fmt"
	"slices"

	"github.com/weir-llm/weir/schemas"
)

// Router says how several routers work together.
type Router struct {
	Active     int   `yaml:"active,omitempty" min:"1" max:"4" doc:"How many routers serve at once, 1 to 4; the tenants are spread over them, and the others stand by. All routers must have the same. Each router fills the room that it sees by itself, so that shares of a model, weights and priorities hold among the tenants of one router and not between those of two: use more than one only for loads that one cannot carry. Default 1."`
	Partitions []int `yaml:"partitions,omitempty" min:"0" max:"3" doc:"Partitions of the requests that this router may serve, each once, of 0 to 3; default all."`
}

func (r *Router) check(f *findings) {
	f.when(r.Partitions != nil && len(r.Partitions) == 0, "router.partitions", fmt.Sprintf("list some of 0 to %d, or leave it out for all", schemas.Partitions-1), "the list is empty")
	for n, p := range r.Partitions {
		f.when(slices.Contains(r.Partitions[:n], p), fmt.Sprintf("router.partitions[%d]", n), "name each partition once", "%d is there twice", p)
	}
}
