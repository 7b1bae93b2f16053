package rpc

import (
	"google.golang.org/grpc/codes"
	health "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// Health asks grpc.health.v1 about the first of the services that the server knows. Known is false when it does not
// answer such questions at all, and the caller must find out in another way.
func (c *Call) Health(services ...string) (known bool, err error) {
	client := health.NewHealthClient(c.client.conn)
	for _, service := range services {
		reply, err := client.Check(c.Context(), &health.HealthCheckRequest{Service: service})
		switch status.Code(err) {
		case codes.OK:
			if reply.GetStatus() != health.HealthCheckResponse_SERVING {
				return true, NotReady(reply.GetStatus().String())
			}
			return true, nil
		case codes.NotFound: // it knows nothing of this service
		case codes.Unimplemented:
			return false, nil
		default:
			return true, c.Failed(err)
		}
	}
	return false, nil
}
