"""The ClientApp around the linear site, for runs over real Flower processes."""

from linear_site import LinearTrainer

from fedphantom.client.app import make_client_app

app = make_client_app(LinearTrainer.open)
