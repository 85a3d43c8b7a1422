// Part of the adapter that scripts/k8s-build.sh builds: its generated models under the names that libraries of today ask for.
package main

import (
	"k8s.io/kube-openapi/pkg/common"
	"k8s.io/kube-openapi/pkg/util"
	generated "sigs.k8s.io/prometheus-adapter/pkg/api/generated/openapi"
)

func definitions(reference common.ReferenceCallback) map[string]common.OpenAPIDefinition {
	all := generated.GetOpenAPIDefinitions(reference)
	named := make(map[string]common.OpenAPIDefinition, 2*len(all))
	for name, definition := range all {
		named[name] = definition
		named[util.ToRESTFriendlyName(name)] = definition
	}
	return named
}
