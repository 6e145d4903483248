"""What coordinator and site sign and hand to each other before the first round."""
