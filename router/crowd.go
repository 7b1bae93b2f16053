package router

import (
	"time"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/schemas"
)

// What a tenant may have here whatever the others have.
const (
	tenantFloor      = 64
	tenantFloorBytes = 8 << 20
)

// crowded refuses a request of a tenant that has as much here as there is room left in its partition. A consumer delivers in
// order, so that without a bound the backlog of one tenant would fill all that may be out at once, and those of others
// would not even be seen. With a bound that shrinks as the room does, all tenants that push end up with equal parts, and one
// part always stays free for who comes next (Choudhury and Hahne, "Dynamic queue length thresholds for shared-memory
// packet switches", 1998).
func (l *loop) crowded(it *item) *schemas.Error {
	has := *l.held.tenant(it.req.Tenant)
	has.add(-1, -it.size) // what was here before it
	room := min(bus.RequestsOut-l.heldOf[it.partition], l.cfg.MaxQueued-l.held.count)
	bytes := l.cfg.MaxQueuedBytes - l.held.bytes + it.size
	if has.count < max(room, tenantFloor) && has.bytes < max(bytes, tenantFloorBytes) {
		return nil
	}
	wait := max(l.forecastNew(it.model(), it.req.Tenant, classOf(it.req.Priority)), time.Second).Round(time.Second)
	return schemas.Errorf(schemas.CodeSlowDown,
		"%d requests of the tenant are waiting already, as many as there is room for beside those of others. Please try again in %s.",
		has.count, wait).WithRetryAfter(wait)
}
