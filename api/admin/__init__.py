"""What an admin keeps: products, policies, licenses, machines, events and tokens, behind `store.Resources`."""
