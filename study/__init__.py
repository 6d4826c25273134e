"""The platform: plans, the tree of stages, the store, execution, search, tracking, reports. Generic: never torch."""
