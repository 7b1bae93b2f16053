package main

import (
	"fmt"

	"github.com/weir-llm/weir/schemas"
)

// Router says how several routers work together.
type Router struct {
	Active     int   `yaml:"active,omitempty" doc:"How many routers serve at once, 1 to 4; the tenants are spread over them, and the others stand by. All routers must have the same. Shares of a model are fair among the tenants of one router. Default 1."`
	Partitions []int `yaml:"partitions,omitempty" doc:"Partitions of the requests that this router may serve, of 0 to 3; default all."`
}

func (r *Router) check() *configError {
	if r.Active < 1 || r.Active > schemas.Partitions {
		return problem("router.active", fmt.Sprintf("use 1 to %d", schemas.Partitions), "%d is out of range", r.Active)
	}
	if r.Partitions != nil && len(r.Partitions) == 0 {
		return problem("router.partitions", fmt.Sprintf("list some of 0 to %d, or leave it out for all", schemas.Partitions-1), "the list is empty")
	}
	for n, p := range r.Partitions {
		if p < 0 || p >= schemas.Partitions {
			return problem(fmt.Sprintf("router.partitions[%d]", n), fmt.Sprintf("use 0 to %d", schemas.Partitions-1), "partition %d does not exist", p)
		}
	}
	return nil
}
