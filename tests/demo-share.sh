# shellcheck shell=bash
# SPDX-License-Identifier: BSD-2-Clause
#
# A part of demo.sh, which sources it: three nodes share one address; what one stores the
# others load; then the owner is killed. Uses demo.sh's say(), give_up() and gn_*.

# share_node N CMD... - run it on node N
share_node()
{
	local n=$1
	shift
	GHOSTMEM_AGENT=$GN_TMP/m$n.sock GHOSTMEM_KEY=demo-key gn_exec "m$n" "$@"
}

# demo_share - its numbers go to $GN_TMP/part.share.json
demo_share()
{
	local i pid agents=() region bus value start ms rc

	say "8. ghostmem: three nodes, one address"
	gn_ns sw m1 m2 m3
	gn_must gn_exec sw ip link add br0 type bridge
	gn_must gn_exec sw ip link set br0 up
	for i in 1 2 3; do
		gn_veth "m$i" eth0 sw "p$i"
		gn_must gn_exec sw ip link set "p$i" master br0
		gn_must gn_exec "m$i" ip addr add "10.7.0.$i/24" dev eth0
		gn_spawn pid gn_exec "m$i" "$GN_BIN/ghostmemd" --node "m$i" \
			--listen "tcp:10.7.0.$i:7400" --directory "file:$GN_TMP/regions" \
			--local "$GN_TMP/m$i.sock" --lease 1000
		agents[i]=$pid
	done
	for i in 1 2 3; do
		gn_wait 5 share_node $i "$GN_BIN/ghostmem" ls || give_up "no agent on m$i"
	done
	gn_spawn region share_node 1 "$GN_BIN/ghostmem" export cache 16M
	gn_wait 5 share_known || give_up "the region was not exported"
	bus=$(share_node 1 "$GN_BIN/ghostmem" ls -j | jq '.[] | select(.name == "cache") | .bus')
	printf '   %-22s 0x%x, 16 MiB, home: node 1\n' "bus address" "$bus"
	share_node 1 "$GN_BIN/ghostmem-kv" cache set colour green || give_up "node 1 cannot store"
	echo "   node 1 stores          colour = green"
	for i in 2 3; do
		value=$(share_node $i "$GN_BIN/ghostmem-kv" cache get colour)
		[ "$value" = green ] || give_up "node $i loads '$value'"
		echo "   node $i loads           colour = $value"
	done
	share_node 3 "$GN_BIN/ghostmem-kv" cache set colour blue || give_up "node 3 cannot store"
	value=$(share_node 1 "$GN_BIN/ghostmem-kv" cache get colour)
	[ "$value" = blue ] || give_up "node 1 loads '$value'"
	echo "   node 3 stores blue, node 1 loads colour = $value"

	gn_stop "${agents[1]}" KILL
	start=$(date +%s%3N)
	share_node 2 "$GN_BIN/ghostmem" get "$(printf '0x%x' "$bus")" 4096 8 \
		>"$GN_TMP/gone" 2>&1
	rc=$?
	ms=$(($(date +%s%3N) - start))
	[ $rc = 6 ] || give_up "owner killed, but get gave $rc: $(cat "$GN_TMP/gone")"
	echo "   owner killed; node 2 gets, after $ms ms, exit code $rc:"
	sed 's/^/      /' "$GN_TMP/gone"
	gn_stop "$region"
	gn_stop "${agents[2]}"
	gn_stop "${agents[3]}"
	gn_ns_del sw m1 m2 m3
	jq -n --argjson ms "$ms" '{ share: { nodes: 3, values_equal: true,
		owner_killed_error_ms: $ms } }' >"$GN_TMP/part.share.json"
}

share_known() { share_node 1 "$GN_BIN/ghostmem" ls | grep -q '^cache '; }
